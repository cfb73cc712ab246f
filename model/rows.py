"""Rows of files that people write by hand: instructions, questions, texts."""

import gzip
import io
import json
from hashlib import sha256

import fsspec

from tasks.errors import UserError


def read_rows(uri: str, fields: tuple[str, ...]) -> tuple[list[dict], str]:
    """The rows of a jsonl or jsonl.gz file (any fsspec URI) and the sha256 of its bytes.

    UserError names the line that is no JSON object or lacks one of `fields`.
    """
    try:
        with fsspec.open(uri, "rb") as file:
            raw = file.read()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except FileNotFoundError:
        raise UserError(
            f"{uri}: no such file; give a jsonl or jsonl.gz file of rows with {', '.join(fields)}"
        ) from None
    except (OSError, EOFError) as error:
        raise UserError(f"{uri}: not a whole gzip file ({type(error).__name__}): fetch it again") from None
    rows = []
    for number, line in enumerate(io.BytesIO(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise UserError(f"{uri}, line {number}: not JSON; every line is one object") from None
        missing = [field for field in fields if not isinstance(row, dict) or field not in row]
        if missing:
            has = f" (this one has {', '.join(sorted(row)[:8])})" if isinstance(row, dict) and row else ""
            raise UserError(f"{uri}, line {number}: the row lacks {missing[0]!r}; rows have {', '.join(fields)}{has}")
        rows.append(row)
    if not rows:
        raise UserError(f"{uri}: holds no rows")
    return rows, sha256(raw).hexdigest()
