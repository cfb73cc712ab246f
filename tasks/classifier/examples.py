"""Examples for a classifier: rows of files, and documents that SQL chooses.

A source is one of

    sft/*.jsonl.gz                       JSON lines, Parquet or text files, by a path, glob or URI
    SELECT doc_id FROM documents ...     SQL over the views of lineage.duckdb, read-only, that gives doc_id

A row of JSON or Parquet is a text (the column that `column` names, else text or content), a conversation (messages or
conversations) or an instruction: the question, what it is about and the answer, under the names of Alpaca, Dolly,
self-instruct and their like, joined by blank lines, a prompt's template taken off. A text file has no documents, so it
is cut at blank lines into passages of about PASSAGE characters. What comes from one file of text, or from one domain,
is one group: it is all trained on, or all held out.

Sampling is by content, not by chance: of more than `limit` texts those with the smallest hashes are taken.
"""

import contextlib
import hashlib
import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import query
from tasks.errors import UserError
from tasks.storage import Root

EXAMPLES = pa.schema([("text", pa.large_string()), ("label", pa.int8()), ("source", pa.int32()),
                      ("group", pa.string()), ("hash", pa.uint64())])
PASSAGE = 4000                  # characters: about a web page

_SQL = re.compile(r"\s*(?:select|with|from)\s", re.IGNORECASE)
_KIND = re.compile(r"\.(?:(?:(jsonl|ndjson|json)|(txt|text|md))(?:\.(?:gz|bz2|xz|zst))?|(parquet))$", re.IGNORECASE)
_QUESTION = ("instruction", "prompt", "question", "query")
_ABOUT = ("input", "context")
_ANSWER = ("output", "response", "answer", "completion")
_TEXT = ("text", "content", "document")
_TALK = ("messages", "conversations")
# Alpaca's template (https://github.com/tatsu-lab/stanford_alpaca), which gives the class away where it stands.
_TEMPLATE = re.compile(r"###\s*Instruction:\s*(.*?)\s*(?:###\s*Input:\s*(.*?)\s*)?(?:###\s*Response:\s*(.*))?$",
                       re.DOTALL)


class Found(NamedTuple):
    """Examples of one class, and what the sources were: uri or SQL, sha256, rows read, texts taken."""

    table: pa.Table
    sources: list[dict[str, Any]]


def read_examples(sources: Sequence[str], label: int, root: Root, *, column: str | None = None, limit: int = 0,
                  what: str = "positives") -> Found:
    """The texts of one class; empty ones are left out.

    Args:
        sources: files and SQL, as said above.
        label: 1 or 0.
        root: whose lineage SQL asks.
        column: the text's column in files, where the usual names do not find it.
        limit: texts at most, over all sources; 0: no limit.
        what: positives or negatives, for errors.

    Raises UserError for a source that matches nothing, cannot be read, or holds no texts.
    """
    taken: list[tuple[int, str, int, str]] = []         # (-hash, text, source, group): a heap that gives the largest up
    about: list[dict[str, Any]] = []
    for source in sources:
        found = _documents(source, root, limit) if _SQL.match(source) else _files(source, column)
        for name, digest, rows in found:
            number, entry = len(about), {"source": name, "sha256": digest, "rows": 0, "texts": 0}
            about.append(entry)
            with _told(name):
                for text, group in rows:
                    entry["rows"] += 1
                    if text.strip():
                        group = f"{what}/{number}/{entry['rows']}" if group is None else group
                        item = (-_hash(text), text, number, group)
                        if not limit or len(taken) < limit:
                            heapq.heappush(taken, item)
                        else:
                            heapq.heappushpop(taken, item)
            if not entry["rows"]:
                raise UserError(f"the {what} {name} hold no rows; give another file or statement")
    if not taken:
        raise UserError(f"the {what} hold no text; check {about[0]['source'] if about else 'what is given'}")
    taken.sort(key=lambda item: (-item[0], item[1], item[2], item[3]))
    for _, _, number, _ in taken:
        about[number]["texts"] += 1
    columns = [[item[1] for item in taken], [label] * len(taken), [item[2] for item in taken],
               [item[3] for item in taken], [-item[0] for item in taken]]
    return Found(pa.table([pa.array(values, field.type) for values, field in zip(columns, EXAMPLES, strict=True)],
                          schema=EXAMPLES), about)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


@contextlib.contextmanager
def _told(name: str):
    try:
        yield
    except UserError:
        raise
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UserError(f"cannot read {name} ({type(error).__name__}); check the file") from None


Rows = Iterator[tuple[str, str | None]]


def _files(source: str, column: str | None) -> Iterator[tuple[str, str, Rows]]:
    """For each file of a path, glob or URI, in the order of their names: its URI, sha256 and rows (text, group)."""
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        paths = [path] if filesystem.isfile(path) else sorted(filesystem.glob(path))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read {source} ({type(error).__name__}); check the address") from None
    if not paths:
        raise UserError(f"{source} matches no file; check the path, and quote a glob")
    files = [fsspec.core.OpenFile(filesystem, path) for path in paths]
    for file in files:
        kind = _KIND.search(file.path)
        if not kind:
            raise UserError(f"{file.path} is no example file; give .jsonl, .parquet or .txt (.gz and the like too), or "
                            f"SQL that begins with SELECT")
        with _told(file.path), file.fs.open(file.path, "rb") as opened:
            digest = hashlib.sha256()
            while block := opened.read(1 << 20):
                digest.update(block)
        read = _json if kind[1] else _passages if kind[2] else _parquet
        yield file.path, digest.hexdigest(), read(file, column)


def _lines(file) -> Iterator[str]:
    with fsspec.core.OpenFile(file.fs, file.path, "rt", fsspec.utils.infer_compression(file.path), "utf-8") as lines:
        yield from lines


def _json(file, column: str | None) -> Rows:
    lines = _lines(file)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("["):  # one list of objects, as Alpaca's own file is
            line += "".join(lines)
        try:
            rows = json.loads(line)
        except ValueError:
            raise UserError(
                f"{file.path}, line {number}: this is not JSON; give one object a line, or one list") from None
        for row in rows if isinstance(rows, list) and number == 1 else [rows]:
            if not isinstance(row, dict):
                raise UserError(f"{file.path}, line {number}: a row is a JSON object with a text or an instruction")
            yield text_of(row, f"{file.path}, line {number}", column), _domain(row)


def _parquet(file, column: str | None) -> Rows:
    with file.fs.open(file.path, "rb") as opened:
        number = 0
        for batch in pq.ParquetFile(opened).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield text_of(row, f"{file.path}, row {number}", column), _domain(row)


def _passages(file, column: str | None) -> Rows:
    block: list[str] = []
    size = 0
    for line in _lines(file):
        if size >= PASSAGE and (not line.strip() or size >= 2 * PASSAGE):
            yield "".join(block), file.path
            block, size = [], 0
        block.append(line)
        size += len(line)
    yield "".join(block), file.path


def _domain(row: Mapping[str, Any]) -> str | None:
    value = row.get("domain")
    return f"domain/{value}" if isinstance(value, str) and value else None


def text_of(row: Mapping[str, Any], where: str, column: str | None = None) -> str:
    """The text of a row; `where` names it in errors. Raises UserError where there is none."""
    if column is not None:
        if column not in row:
            raise UserError(f"{where} has no column {column!r}; it has {', '.join(map(str, row))}")
        return row[column] if isinstance(row[column], str) else ""
    answer = _first(row, _ANSWER)
    if answer is None and isinstance(row.get("instances"), list):
        row = {**row, **next((one for one in row["instances"] if isinstance(one, dict)), {})}
        answer = _first(row, _ANSWER)
    question = _first(row, _QUESTION)
    if question is not None and answer is not None:
        template = _TEMPLATE.search(question)
        parts = [part for part in template.groups() if part] if template else [question, _first(row, _ABOUT)]
        return "\n\n".join(part for part in [*parts, answer] if part)
    for name in _TALK:
        if isinstance(row.get(name), list):
            turns = [_first(turn, ("content", "value")) for turn in row[name] if isinstance(turn, dict)]
            return "\n\n".join(turn for turn in turns if turn)
    text = _first(row, _TEXT)
    if text is None:
        if any(name in row for name in _TEXT):
            return ""                                   # a null
        raise UserError(f"{where} is no text and no instruction; name the column of the text with --text-column; it "
                        f"has {', '.join(map(str, row)) or 'none'}")
    return text


def _first(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


def _documents(statement: str, root: Root, limit: int) -> Iterator[tuple[str, str, Rows]]:
    """The documents whose doc_id an SQL statement gives, each once; its sha256 is that of the ids."""
    answer = query.run(root, statement)
    if "doc_id" not in answer.column_names:
        raise UserError(f"the SQL gives {', '.join(answer.column_names)}, and not doc_id; select the documents' doc_id")
    ids = pc.unique(answer["doc_id"].cast(pa.string())).drop_null()
    if not len(ids):
        raise UserError(f"the SQL chooses no document: {' '.join(statement.split())[:200]}")
    ids = ids.take(pc.sort_indices(ids))                # a doc_id is a hash: the first ones are a random sample
    if limit:
        ids = ids.slice(0, limit)
    digest = hashlib.sha256("\n".join(ids.to_pylist()).encode()).hexdigest()
    yield " ".join(statement.split()), digest, _texts(ids, root)


def _texts(ids: pa.Array, root: Root) -> Rows:
    places = query.run(root, """
        SELECT f.path, min(d.row) AS row, d.doc_id, any_value(d.domain) AS domain
        FROM documents AS d JOIN files AS f ON f.kind = 'documents' AND (f.name, f.version, f.number) =
             (d.name, d.version, d.part)
        WHERE d.doc_id::VARCHAR IN (SELECT unnest($ids::VARCHAR[])) GROUP BY ALL ORDER BY f.path, row""",
        {"ids": ids.to_pylist()})
    seen: set[str] = set()
    for path in pc.unique(places["path"]).to_pylist():
        wanted = places.filter(pc.equal(places["path"], path))
        with root.fs.open(path, "rb") as file:
            table = pq.read_table(file, columns=["doc_id", "text"], page_checksum_verification=True).take(wanted["row"])
        names = [str(value) for value in wanted["doc_id"].to_pylist()]
        if [str(value) for value in table["doc_id"].to_pylist()] != names:
            raise UserError(f"{path} is not what lineage.duckdb says; give `gristmill sql --rebuild` and try again")
        for name, text, domain in zip(names, table["text"].to_pylist(), wanted["domain"].to_pylist(), strict=True):
            if name not in seen:
                seen.add(name)
                yield text or "", f"domain/{domain}" if domain else None
    if missing := len(ids) - len(seen):
        raise UserError(f"{missing} of the documents that the SQL chose are not among those of lineage.duckdb; select "
                        f"doc_id from its view documents")
