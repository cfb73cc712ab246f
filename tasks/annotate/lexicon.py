"""Words that mean something by language: stop words and bad words, as a table of hashes that the kernels look up.

Stop words. The lists of jusText (Pomikálek 2011; https://github.com/miso-belica/jusText, BSD 2-Clause), which
trafilatura brings with it: the commonest words of about a hundred Wikipedias, in the order of their frequency. A
language's short list is its first SHORT words, as FineWeb-2 takes the words above a frequency (Penedo et al. 2025,
https://arxiv.org/abs/2506.20920); its long list the first LONG. jusText has none for the languages written without
spaces: theirs are here, short only. `annotate.stop_words` may name a file with other short lists.

Bad words. None come with the package; `annotate.bad_words` names a file, such as the List of Dirty, Naughty, Obscene,
and Otherwise Bad Words (https://github.com/LDNOOBW, CC-BY-4.0) that C4 and RedPajama-V2 use, brought into its form.

A file has one JSON object a line, {"lang": code, "words": [...]}, and may be gzipped. Entries are divided into words as
texts are (`tasks.words`); an entry of several words is a phrase, and those without any are passed over.
"""

import gzip
import hashlib
import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.annotate.scanned import word_hashes
from tasks.errors import UserError
from tasks.mapped import mapped
from tasks.storage import Place
from tasks.words import GRAM_BASE, MASK

LEAST, LONG = 50, 500        # a list of fewer than LEAST words is no long list
SHORT = 12                   # of jusText's first 12 words FineWeb-2's lists hold 86 %, of the first 20 66 %
SHORT_LIST, LONG_LIST, BAD, BEGINS_BAD = 1, 2, 4, 8         # the kernel knows them by these values

# Language codes and the files of jusText.
JUSTEXT = {code: names.split("+") for code, names in (pair.split(":") for pair in """
af:Afrikaans an:Aragonese ar:Arabic ast:Asturian az:Azerbaijani be:Belarusian bg:Bulgarian bn:Bengali
bpy:Bishnupriya_Manipuri br:Breton bs:Bosnian ca:Catalan ceb:Cebuano cs:Czech cv:Chuvash cy:Welsh da:Danish de:German
el:Greek en:English eo:Esperanto es:Spanish et:Estonian eu:Basque fa:Persian fi:Finnish fr:French fy:West_Frisian
ga:Irish gl:Galician gu:Gujarati he:Hebrew hi:Hindi hr:Croatian ht:Haitian hu:Hungarian hy:Armenian id:Indonesian
ig:Igbo io:Ido is:Icelandic it:Italian jv:Javanese ka:Georgian kk:Kazakh kn:Kannada ko:Korean ku:Kurdish ky:Kyrgyz
la:Latin lb:Luxembourgish lmo:Lombard lt:Lithuanian lv:Latvian mk:Macedonian ml:Malayalam mr:Marathi ms:Malay mt:Maltese
nap:Neapolitan nds:Low_Saxon ne:Nepali new:Newar nl:Dutch nn:Norwegian_Nynorsk no:Norwegian_Bokmal oc:Occitan
pl:Polish pms:Piedmontese pnb:Western_Panjabi pt:Portuguese qu:Quechua ro:Romanian ru:Russian rup:Aromanian scn:Sicilian
sgs:Samogitian sh:Serbo_Croatian sk:Slovak sl:Slovenian sq:Albanian sr:Serbian+Serbo_Croatian su:Sundanese sv:Swedish
sw:Swahili ta:Tamil te:Telugu tk:Turkmen tl:Tagalog tr:Turkish uk:Ukrainian ur:Urdu uz:Uzbek vi:Vietnamese vo:Volapuk
wa:Walloon war:Waray_Waray yo:Yoruba""".split())}

UNSPACED = {code: words.split() for code, words in {
    "zh": "的 是 在 了 和 有 不 也 与 與 为 為 这 這 他 人",
    "yue": "嘅 係 喺 咗 同 有 唔 佢 呢 都 的 在 是 人",
    "ja": "の に は を が と で た て も から こと",
    "th": "ที่ และ ใน เป็น ของ มี การ ได้ ไม่ ว่า ให้ จะ",
    "lo": "ແລະ ທີ່ ໃນ ເປັນ ຂອງ ມີ ການ ໄດ້ ບໍ່ ວ່າ ໃຫ້ ຈະ",
    "km": "និង នៃ ជា បាន ក្នុង នៅ ដែល មាន ទៅ ពី នេះ មិន",
    "my": "သည် နှင့် တွင် များ ကို မှ တစ် ဖြစ် ပါ အတွက် ဟု ခဲ့"}.items()}


# What decides the hashes of words.
_HASHING = [Path(__file__).parent / name for name in ("scan.py", "scanned.py", "segment.py", "dictionary/words.bin",
                                                      "../words.py")]


class WordLists(BaseModel):
    """A file of words by language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Place = Field(
        description='A path or URI; a JSON object a line, {"lang": code, "words": [...]}; may be gzipped')
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$", description="The sha256 of that file, 64 hexadecimal digits.")


class Lexicon(NamedTuple):
    languages: dict[str, int]       # code -> number, in the order of the codes
    stop_words: frozenset[str]      # the codes that have a short list, a long list, a list of bad words
    long_lists: frozenset[str]
    bad_words: frozenset[str]
    bounds: np.ndarray              # int64 of shape (languages + 1,): language k has the slots bounds[k]:bounds[k + 1]
    keys: np.ndarray                # uint64 of shape (slots,): hashes of words and phrases, 0 where empty
    flags: np.ndarray               # uint8 of shape (slots,)
    longest: int                    # words of the longest phrase


@lru_cache(maxsize=2)
def lexicon(stop_words: WordLists | None = None, bad_words: WordLists | None = None) -> Lexicon:
    """The table of all lists.

    Raises UserError when a file is missing, has another sha256, or is none of words by language.
    """
    if not stop_words and not bad_words:
        *arrays, codes = _default()
        codes, short, common = json.loads(codes.tobytes())
        return Lexicon({code: number for number, code in enumerate(codes)}, frozenset(short), frozenset(common),
                       frozenset(), *arrays, longest=1)
    short, common = _stop_words()
    if stop_words:
        short = read(stop_words, "annotate.stop_words")
    bad = read(bad_words, "annotate.bad_words") if bad_words else {}
    return table(short, common, bad)


@mapped(*_HASHING, libraries=("justext", "unicodedata"))
def _default() -> tuple[np.ndarray, ...]:
    """`table` of the lists that come with us: bounds, keys, flags; codes of all, short and long lists as JSON."""
    made = table(*_stop_words(), {})
    codes = json.dumps([list(made.languages), sorted(made.stop_words), sorted(made.long_lists)]).encode()
    return made.bounds, made.keys, made.flags, np.frombuffer(codes, np.uint8)


def _stop_words() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The short and the long lists by language code."""
    common = {code: _merged([_justext(name) for name in names]) for code, names in JUSTEXT.items()}
    short = {code: words[:SHORT * len(JUSTEXT[code])] for code, words in common.items()} | UNSPACED
    return short, {code: words[:LONG] for code, words in common.items() if len(words) >= LEAST}


def table(short: dict[str, list[str]], common: dict[str, list[str]], bad: dict[str, list[str]]) -> Lexicon:
    """The Lexicon of short and long lists of stop words and of lists of bad words, each by language code."""
    codes, longest = sorted({*short, *common, *bad}), 1
    entries = [(code, flag, entry) for lists, flag in ((short, SHORT_LIST), (common, LONG_LIST), (bad, BAD))
               for code in sorted(lists) for entry in lists[code]]
    found: dict[str, dict[int, int]] = {code: {} for code in codes}
    for (code, flag, _), words in zip(entries, hashes([entry for *_, entry in entries]), strict=True):
        known = found[code]
        if len(words) == 1 or words and flag == BAD:
            gram = 0
            for word in words:
                gram = (gram * GRAM_BASE + word) & MASK
            known[gram] = known.get(gram, 0) | flag
        if len(words) > 1 and flag == BAD:
            known[words[0]] = known.get(words[0], 0) | BEGINS_BAD
            longest = max(longest, len(words))
    tables = [_slots(found[code]) for code in codes]
    bounds = np.cumsum([0, *(len(keys) for keys, _ in tables)])
    keys, flags = (np.concatenate(columns) for columns in
                   zip((np.zeros(0, np.uint64), np.zeros(0, np.uint8)), *tables, strict=True))
    arrays = bounds, keys, flags
    for array in arrays:
        array.setflags(write=False)
    return Lexicon({code: number for number, code in enumerate(codes)}, frozenset(short), frozenset(common),
                   frozenset(bad), *arrays, longest)


def hashes(entries: list[str]) -> list[list[int]]:
    """The hashes of the words of each entry."""
    if not entries:
        return []
    words, ends = word_hashes(pa.array(entries, pa.large_string()))
    ends = ends.tolist()
    return [words[first:last].tolist() for first, last in zip(ends[:-1], ends[1:], strict=True)]


def read(lists: WordLists, setting: str) -> dict[str, list[str]]:
    """The words of a file by language code."""
    from tasks.annotate.language import code

    try:
        with fsspec.open(lists.path, "rb") as file:
            data = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read {setting}.path {lists.path} ({type(error).__name__}); check the path") from None
    found = hashlib.sha256(data).hexdigest()
    if found != lists.sha256.lower():
        raise UserError(f"{setting}.path {lists.path} has sha256 {found}, but {setting}.sha256 is "
                        f"{lists.sha256.lower()}; get the right file, or pin the sum of this one")
    words: dict[str, list[str]] = {}
    try:
        for line in (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode().splitlines():
            if line.strip():
                row = json.loads(line)
                words.setdefault(code(row["lang"]), []).extend(map(str, row["words"]))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{setting}.path {lists.path} is no list of words by language ({type(error).__name__}); "
                        f'write one JSON object a line: {{"lang": "en", "words": ["..."]}}') from None
    return words


def _justext(name: str) -> list[str]:
    text = resources.files("justext").joinpath(f"stoplists/{name}.txt").read_text(encoding="utf-8")
    seen: dict[str, None] = {}
    for line in text.splitlines():                          # sentence ends and capitals make entries of their own there
        word = line.strip(" \t.,;:!?()[]\"'«»„“”").casefold()
        if any(char.isalpha() for char in word):
            seen.setdefault(word)
        if len(seen) == LONG:
            break
    return list(seen)


def _merged(lists: list[list[str]]) -> list[str]:
    """The words of several lists in turn, each once."""
    longest = max(map(len, lists))
    return list(dict.fromkeys(words[i] for i in range(longest) for words in lists if i < len(words)))


def _slots(found: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An open-addressing table of 64-bit keys and their flags, at most half full."""
    size = 1 << (2 * len(found)).bit_length()
    keys, flags = np.zeros(size, np.uint64), np.zeros(size, np.uint8)
    for key in sorted(found):
        slot = key & size - 1
        while keys[slot]:
            slot = slot + 1 & size - 1
        keys[slot], flags[slot] = key, found[key]
    return keys, flags


NO_WORDS = table({}, {}, {})
