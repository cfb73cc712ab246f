"""The columns of every table, in one place.

A document is named by `doc_id` everywhere: a UUID that is a hash of where its record lies (source
URI and byte offset), so the same record has the same name in every build. Arrow carries it as
`pa.uuid()`, Parquet as UUID, DuckDB as UUID (128-bit integers would be written to Parquet as
DOUBLE, silently).
"""

import hashlib

import numpy as np
import pyarrow as pa

UUID = pa.uuid()

DOCUMENTS = pa.schema(
    [
        ("doc_id", UUID),
        ("content_id", UUID),  # hash of the text with white space collapsed, casefolded
        ("url", pa.string()),
        ("domain", pa.string()),  # host name, lower case, without port
        ("snapshot", pa.string()),
        ("source", pa.string()),  # the name that the mixture weighs
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),  # of the record (its gzip member) in the file, bytes
        ("warc_length", pa.int64()),  # bytes it takes there, compressed
        ("fetched_at", pa.timestamp("us", tz="UTC")),
        ("charset", pa.string()),
        ("title", pa.string()),
        ("rights", pa.list_(pa.string())),  # opt-outs and licences found: noai, tdm-reservation, cc-by-4.0 ...
        ("html_bytes", pa.int64()),  # of the decoded body
        ("text", pa.string()),
    ]
)

# One row for each input record that a stage dropped; publishing adds a row for each that was kept.
FATES = pa.schema(
    [
        ("doc_id", UUID),
        ("url", pa.string()),
        ("domain", pa.string()),
        ("snapshot", pa.string()),
        ("source", pa.string()),
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),
        ("outcome", pa.string()),  # kept | dropped
        ("stage", pa.string()),
        ("rule", pa.string()),
        ("value", pa.float64()),  # what decided
        ("threshold", pa.float64()),  # against what
        ("detail", pa.string()),  # a closed vocabulary (media type, exception class); never page text
        ("duplicate_of", UUID),
        ("similarity", pa.float64()),
        ("failed", pa.list_(pa.struct([("rule", pa.string()), ("value", pa.float64()), ("threshold", pa.float64())]))),
    ]
)

# The rows of a documents shard that are still in: `row` is the index there, `doc_id` proves it.
KEPT = pa.schema([("doc_id", UUID), ("row", pa.int32())])

# Edits of texts, which themselves are never changed (tasks.spans): offsets and lengths in code points of `text`;
# what stands there instead: `<TYPE>` where the replacement is null, nothing where it is empty.
SPAN = pa.struct(
    [("type", pa.string()), ("offset", pa.int32()), ("length", pa.int32()), ("replacement", pa.string())]
)
SPANS = pa.schema([("doc_id", UUID), ("row", pa.int32()), ("spans", pa.list_(SPAN))])

# The lines that are cut, one span each; each letter of a script without spaces counts as a word here.
LINES = pa.schema(
    [
        *SPANS,
        ("n_lines", pa.int32()),
        ("n_cut_lines", pa.int32()),
        ("n_words", pa.int32()),
        ("n_cut_words", pa.int32()),
    ]
)

# What is left after the last stage that drops documents for what they say: `spans` are all edits of its text,
# `contamination` the benchmark items of which it holds passages (those that dropped a document are in its fate).
CONTAMINATION = pa.struct(
    [("benchmark", pa.string()), ("item", pa.string()), ("matched", pa.int32()), ("fraction", pa.float64())]
)
CLEAN = pa.schema([*SPANS, ("contamination", pa.list_(CONTAMINATION))])

# What training reads. `tokens` ends with the end-of-text token; n_bytes is the UTF-8 size of the text tokenized.
TOKENS = pa.schema(
    [
        ("doc_id", UUID),
        ("source", pa.string()),
        ("domain", pa.string()),
        ("language", pa.string()),
        ("repeat", pa.int16()),  # 0 at first, 1 in the second epoch of a small source ...
        ("n_bytes", pa.int32()),
        ("n_tokens", pa.int32()),
        ("tokens", pa.list_(pa.uint16())),  # or list<uint32> where the vocabulary needs it
    ]
)


def doc_id(source_uri: str, offset: int) -> bytes:
    """The 16 bytes that name the record at byte `offset` of `source_uri`, for ever."""
    return hashlib.blake2b(f"{source_uri}\0{offset}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def content_id(text: str) -> bytes:
    """16 bytes equal for texts that differ only in case and white space."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def id_bytes(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A UUID column as binary(16): Arrow has few kernels for the extension type itself."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def id_array(values) -> pa.Array:
    """A UUID column from 16-byte values (None allowed) or from a binary(16) array."""
    storage = values if isinstance(values, pa.Array) else pa.array(values, pa.binary(16))
    return pa.ExtensionArray.from_storage(UUID, storage)


def id_words(column) -> np.ndarray:
    """A UUID column without nulls as an array of shape (n, 2), dtype big-endian uint64: sorts like the ids."""
    storage = id_bytes(column)
    if len(storage) == 0:
        return np.empty((0, 2), dtype=">u8")
    buffer = np.frombuffer(storage.buffers()[1], dtype=">u8")
    return buffer.reshape(-1, 2)[storage.offset : storage.offset + len(storage)]


def take(shard: pa.Table, kept: pa.Table) -> pa.Table:
    """The rows of `shard` that `kept` names.

    Raises ValueError if a row index does not lead to its doc_id: alignment is checked, not believed.
    """
    rows = shard.take(kept["row"])
    if not id_bytes(rows["doc_id"]).equals(id_bytes(kept["doc_id"])):
        raise ValueError("the kept rows do not belong to this shard: row and doc_id disagree")
    return rows


def all_rows(shard: pa.Table) -> pa.Table:
    """The KEPT table that keeps every row of `shard`."""
    return pa.table({"doc_id": shard["doc_id"], "row": pa.array(np.arange(len(shard), dtype=np.int32))}, schema=KEPT)


def fates(
    documents: pa.Table,
    rows,
    stage: str,
    rule,
    *,
    value=None,
    threshold=None,
    detail=None,
    duplicate_of=None,
    similarity=None,
    failed=None,
) -> pa.Table:
    """Fates of the dropped `rows` (indices) of `documents`.

    `rule` and the keyword arguments are a scalar for all rows, or one value a row. `documents` needs
    doc_id, url, domain, snapshot, source, warc_file and warc_offset.
    """
    rows = np.asarray(rows, dtype=np.int64)
    n = len(rows)
    origin = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]
    columns = dict(zip(origin, documents.select(origin).take(pa.array(rows)).columns, strict=True))

    def column(values, kind):
        if values is None:
            return pa.nulls(n, kind)
        if isinstance(values, (str, int, float)):
            return pa.array([values] * n, kind)
        return pa.array(values, kind)

    columns |= {
        "outcome": column("dropped", pa.string()),
        "stage": column(stage, pa.string()),
        "rule": column(rule, pa.string()),
        "value": column(value, pa.float64()),
        "threshold": column(threshold, pa.float64()),
        "detail": column(detail, pa.string()),
        "duplicate_of": id_array(duplicate_of if duplicate_of is not None else [None] * n),
        "similarity": column(similarity, pa.float64()),
        "failed": column(failed, FATES.field("failed").type),
    }
    return pa.table(columns, schema=FATES)
