"""Files that people write by hand: rows of instructions, questions and texts, and what their tasks are called."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import UnionType

import fsspec

from tasks.errors import UserError

KINDS = {str: "a text", str | None: "a text", list: "a list", int: "a number"}


def read_bytes(uri: str, wanted: str) -> tuple[bytes, str]:
    """What a file (any fsspec URI) holds, unzipped where it is gzip, and the sha256 of its bytes as they lie.

    UserError for one that cannot be read; `wanted` says what to give instead.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        raise UserError(f"{uri}: no such file; give {wanted}") from None
    except (OSError, ValueError, ImportError) as error:         # a folder, no such protocol, no package for it
        raise UserError(f"{uri}: cannot be read ({type(error).__name__}); give {wanted}") from None
    try:
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw, sha256(raw).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{uri}: not a whole gzip file ({type(error).__name__}): fetch it again") from None


def read_rows(uri: str, fields: dict[str, type | UnionType],
              wrong: Callable[[dict], str] = lambda row: "") -> tuple[list[dict], str]:
    """The rows of a jsonl or jsonl.gz file and the sha256 of its bytes.

    UserError names the line that is no JSON object, lacks one of `fields` or has something else there, holds what
    cannot be written as UTF-8, or of which `wrong` says what is wrong with it.
    """
    content, digest = read_bytes(uri, f"a jsonl or jsonl.gz file of rows with {', '.join(fields)}")
    rows = []
    for number, line in enumerate(io.BytesIO(content), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError(f"{uri}, line {number}: not UTF-8; save the file as UTF-8") from None
        except (ValueError, RecursionError):
            raise UserError(f"{uri}, line {number}: not JSON; every line is one object") from None
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            has = f" (this one has {', '.join(sorted(row)[:8])})" if isinstance(row, dict) and row else ""
            raise UserError(f"{uri}, line {number}: the row lacks {missing[0]!r}; rows have {', '.join(fields)}{has}")
        for name, value in row.items():
            if name in fields and not isinstance(value, fields[name]):
                raise UserError(f"{uri}, line {number}: {name} is not {KINDS[fields[name]]}")
            if b"\\u" in line and not _encodable({name: value}):
                raise UserError(f"{uri}, line {number}: {name!a} holds half of a surrogate pair, which is no "
                                "character; write the text as UTF-8")
        if sentence := wrong(row):
            raise UserError(f"{uri}, line {number}: {sentence}")
        rows.append(row)
    if not rows:
        raise UserError(f"{uri}: holds no rows")
    return rows, digest


def _encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def instruction_rows(uri: str) -> tuple[list[dict], str]:
    """Rows {instruction, output} of texts, and `input` where there is one, as read_rows gives them."""
    return read_rows(uri, {"instruction": str, "output": str},
                     lambda row: "" if isinstance(row.get("input"), str | None) else "input is not a text")


def name_of(uri: str) -> str:
    """What a file's task is called."""
    return Path(uri.removesuffix(".gz")).stem


def check_names(setting: str, uris: Sequence[str]) -> None:
    """UserError for two files whose results would go by one name."""
    known: dict[str, str] = {}
    for uri in uris:
        if (name := name_of(uri)) in known:
            raise UserError(f"setting {setting}: the results of {known[name]} and {uri} would both be called {name!r}; "
                            "name the files apart")
        known[name] = uri
