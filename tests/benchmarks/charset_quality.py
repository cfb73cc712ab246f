"""How many texts of unknown encoding are decoded to the right characters, ours beside three detectors. By hand:

    GRISTMILL_SHARED=... python tests/benchmarks/charset_quality.py [--misses]

A text counts as right when it equals what the stated encoding gives: Python's decoder of that name or the wider one
that the WHATWG means by it (windows-1252 for ISO-8859-1, cp949 for EUC-KR), undecodable bytes replaced, byte order mark
and carriage returns left out of the comparison. A name that decodes these bytes to the same text is thus as right as
the stated one. Nobody is told an encoding. Sets:

    chardet_tests   files of known encoding; meta elements and XML declarations may be read
    struck out      the same, "charset" and "encoding" made illegible in declarations: statistics alone
    transcoded      sentences of lingua_sentences_dev, 300 to 600 characters in the legacy encodings of their language,
                    as text and in a small page: texts that no detector was tested on
    web pages       shared pages that are no UTF-8, as their label says, the labels struck out
"""

import base64
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import chardet
import charset_normalizer
from resiliparse.parse.encoding import detect_encoding

from tasks.extract.codings import Undecodable
from tasks.extract.decode import codec, decode_text
from tasks.extract.records import read_records

_LANGUAGE = re.compile(r"(?<=\d)-[a-z]{3,}$")
_DECLARATION = re.compile(rb"(?i)(charset|encoding)(?=\s*=)")
_ENCODINGS = {  # the legacy encodings that pages of a language are met in
    "ru": ["cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic"], "uk": ["cp1251", "koi8-u"], "bg": ["cp1251"],
    "be": ["cp1251"], "sr": ["cp1251"], "mk": ["cp1251"], "el": ["cp1253", "iso8859-7"], "he": ["cp1255"],
    "ar": ["cp1256", "iso8859-6"], "fa": ["cp1256"], "tr": ["cp1254", "iso8859-9"], "th": ["cp874"], "vi": ["cp1258"],
    "ja": ["cp932", "euc_jp", "iso2022_jp"], "ko": ["cp949"], "zh": ["gb18030", "big5hkscs"],
    "pl": ["cp1250", "iso8859-2"], "cs": ["cp1250", "iso8859-2"], "sk": ["cp1250"], "hu": ["cp1250", "iso8859-2"],
    "ro": ["cp1250"], "hr": ["cp1250"],
    "sl": ["cp1250", "iso8859-2"], "lt": ["cp1257"], "lv": ["cp1257"], "et": ["cp1257"], "de": ["cp1252"],
    "fr": ["cp1252", "mac-roman"], "es": ["cp1252", "cp850"], "pt": ["cp1252"], "it": ["cp1252"], "nl": ["cp1252"],
    "sv": ["cp1252"], "da": ["cp1252"], "nb": ["cp1252"], "fi": ["cp1252"], "is": ["cp1252"], "ca": ["cp1252"]}


class Case(NamedTuple):
    name: str
    body: bytes
    right: set[str]


def _same(text: str) -> str:
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _readings(body: bytes, name: str) -> set[str]:
    found = set()
    for label in {codec(name), name} - {None}:
        try:
            found.add(_same(body.decode(label, "replace")))
        except LookupError:  # EUC-TW: Python has no decoder, so nothing counts as right
            pass
    return found


def chardet_tests(data: Path, struck: bool) -> Iterator[Case]:
    for line in gzip.open(data / "charset" / "chardet_tests.jsonl.gz", "rt"):
        row = json.loads(line)
        body = base64.b64decode(row["b64"])
        body = _DECLARATION.sub(rb"xxxxx", body) if struck else body
        yield Case(row["id"], body, _readings(body, _LANGUAGE.sub("", row["encoding"])))


def transcoded(data: Path) -> Iterator[Case]:
    sentences: dict[str, list[str]] = {}
    for line in gzip.open(data / "langid" / "lingua_sentences_dev.jsonl.gz", "rt"):
        row = json.loads(line)
        sentences.setdefault(row["lang"], []).append(row["text"])
    for language, encodings in _ENCODINGS.items():
        texts, text = [], ""
        for sentence in sentences.get(language, []):
            text += sentence + "\n"
            if len(text) > 300:
                texts.append(text)
                text = ""
        for encoding in encodings:
            for n, text in enumerate(texts[:6]):
                body = text.encode(encoding, "ignore")
                if body.isascii() and encoding != "iso2022_jp":
                    continue
                body = body if n % 2 else b"<html><body class='a'><p>" + body + b"</p></body></html>"
                yield Case(f"{language} {encoding} {n}", body, {_same(body.decode(encoding))})


def web_pages(data: Path) -> Iterator[Case]:
    files: dict[str, dict[int, dict]] = {}
    for line in gzip.open(data / "web" / "webpages_dev.jsonl.gz", "rt"):
        row = json.loads(line)
        if row.get("charset_actual") not in (None, "utf-8", "ascii"):
            files.setdefault(row["warc_file"], {})[row["warc_offset"]] = row
    from tasks.extract import Extract, _http
    from tasks.extract.codings import dechunk, decompress

    for file, rows in files.items():
        for record in read_records(str(data / "web" / file), 0, 1 << 60, 16 << 20):
            if record.offset in rows:
                headers, body = _http(record, Extract())
                fields = dict(headers)
                if "chunked" in fields.get("transfer-encoding", ""):
                    body = dechunk(body)
                body = decompress(body, fields.get("content-encoding", ""), 16 << 20)
                body = _DECLARATION.sub(rb"xxxxx", body)
                yield Case(rows[record.offset]["id"], body, _readings(body, rows[record.offset]["charset_actual"]))


def _by(detector: Callable[[bytes], str | None]) -> Callable[[bytes], str]:
    def decode(body: bytes) -> str:
        name = detector(body)
        try:
            return body.decode(codec(name) or name, "replace") if name else ""
        except LookupError:
            return ""
    return decode


DECODERS = {
    "gristmill": lambda body: decode_text(body)[0],
    "chardet": _by(lambda body: chardet.detect(body)["encoding"]),
    "charset-normalizer": _by(lambda body: getattr(charset_normalizer.from_bytes(body).best(), "encoding", None)),
    "resiliparse": _by(detect_encoding),
}


def main() -> int:
    data = Path(os.environ["GRISTMILL_SHARED"]) / "data"
    sets = {"chardet_tests": list(chardet_tests(data, False)), "struck out": list(chardet_tests(data, True)),
            "transcoded": list(transcoded(data)), "web pages": list(web_pages(data))}
    ours = 0.0
    print("| set | texts | MB |", " | ".join(DECODERS), "|")
    for name, cases in sets.items():
        size, cells = sum(len(case.body) for case in cases), []
        for decoder, decode in DECODERS.items():
            began, misses = time.process_time(), []
            for case in cases:
                try:
                    text = _same(decode(case.body))
                except Undecodable:
                    text = "undecodable"
                if text not in case.right:
                    misses.append(case.name)
            seconds = time.process_time() - began
            share = 1 - len(misses) / len(cases)
            cells.append(f"{share:.3f} ({size / seconds / 1e6:.1f} MB/s)")
            if (decoder, name) == ("gristmill", "chardet_tests"):
                ours = share
            if "--misses" in sys.argv and decoder == "gristmill":
                print(f"{name}: {misses}", file=sys.stderr)
        print(f"| {name} | {len(cases)} | {size / 1e6:.1f} |", " | ".join(cells), "|", flush=True)
    return int(ours < 0.95)


if __name__ == "__main__":
    sys.exit(main())
