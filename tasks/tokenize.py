"""From documents to token shards.

    excerpt    a shard       documents, kept                        -> texts to train a tokenizer on
    tokenizer  the build     texts of all shards                    -> the tokenizer's two files
    measure    a shard       documents, signals, kept, tokenizer    -> MEASURES: tokens per byte, for the plan
    tokenize   a token shard documents, spans, plan, tokenizer      -> TOKENS
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tiktoken
from pydantic import BaseModel, ConfigDict, Field

from tasks import spans as edits
from tasks.sample import MEASURES, chance
from tasks.schema import TOKENS, UUID, id_bytes, take
from tasks.stage import Stage
from tasks.tokenizer import DESCRIPTION, RANKS, encode, from_files, named, read_files, to_files, train

TEXTS = pa.schema([("doc_id", UUID), ("text", pa.string())])
FILES = pa.schema([("name", pa.string()), ("data", pa.binary())])      # the two files of a tokenizer
SPAN_COLUMNS = ["doc_id", "row", "spans"]


class Tokenize(BaseModel):
    """The tokenizer and the token shards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenizer: str = Field("trained", min_length=1, description="\"trained\" on this corpus, one of tiktoken's "
                           "encodings (gpt2, cl100k_base ...), or a folder with a tokenizer (a path with a slash)")
    vocab_size: int = Field(32_768, ge=261, le=1 << 24, description="tokens of a trained tokenizer, the five special "
                            "ones included")
    train_bytes: int = Field(100_000_000, gt=0, description="text to train a tokenizer on; a sample by doc_id")
    measure_bytes: int = Field(262_144, gt=0, description="text by shard, source and language that is tokenized to "
                               "learn the tokens per byte that the plan reckons with")
    shard_tokens: int = Field(100_000_000, gt=0, description="tokens of a token shard, 10 % more or less")
    min_shards: int = Field(1, ge=1, description="token shards of a small corpus at least: as many can be read at once")

    @property
    def folder(self) -> str | None:
        """The folder that `tokenizer` names, if it names one."""
        return self.tokenizer.rstrip("/") if "/" in self.tokenizer else None


excerpt = Stage("excerpt", version=2, settings=Tokenize, makes=TEXTS,
                needs={"documents": ["doc_id", "text"], "kept": SPAN_COLUMNS})
tokenizer = Stage("tokenizer", version=1, settings=Tokenize, makes=FILES, needs={"texts": ["text"]},
                  libraries=("rustbpe",),
                  resources=lambda s: [f"{s.folder}/{name}" for name in (RANKS, DESCRIPTION)] if s.folder else [])
measure = Stage("measure", version=2, settings=Tokenize, makes=MEASURES,
                needs={"documents": ["doc_id", "source", "text"], "signals": ["doc_id", "language"],
                       "kept": SPAN_COLUMNS, "tokenizer": FILES.names})
tokenize = Stage("tokenize", version=3, settings=Tokenize, makes=None,      # TOKENS, or its uint32 form
                 needs={"documents": ["doc_id", "domain", "text"], "spans": SPAN_COLUMNS, "tokenizer": FILES.names,
                        "plan": ["doc_id", "shard", "row", "repeat", "source", "language"]})


def edited(documents: pa.Table, spans: pa.Table, rows: np.ndarray) -> pa.Array:
    """The texts of `rows` (indices), large_string, with all that was cut or replaced in them.

    Raises ValueError when a row has no spans row of its own: a text that was not scrubbed never goes on.
    """
    mine = documents.select(["doc_id", "text"]).take(pa.array(rows))
    named = pa.table([mine["doc_id"], pa.array(rows, pa.int32())], ["doc_id", "row"])
    return edits.applied(mine["text"], edits.matching(named, spans))


def quotas(rows: Sequence[int], settings: Tokenize) -> list[int]:
    """How many bytes each shard gives to the tokenizer's training, from the shards' kept documents."""
    return [-(-settings.train_bytes * n // max(sum(rows), 1)) for n in rows]


@excerpt.shard
def excerpts(documents: pa.Table, kept: pa.Table, settings: Tokenize, *, quota: int) -> pa.Table:
    """The edited texts of a sample of a shard's kept documents: those of the lowest `chance`, until they hold
    `quota` bytes."""
    order = np.argsort(chance(kept["doc_id"], 0), kind="stable")
    rows = kept["row"].to_numpy()[order]
    sizes = pc.binary_length(documents["text"]).fill_null(0).to_numpy().astype(np.int64)[rows]
    chosen = np.sort(rows[np.cumsum(sizes) - sizes < quota])
    texts = edited(documents, kept, chosen).cast(pa.string())
    return pa.table([documents["doc_id"].combine_chunks().take(pa.array(chosen)), texts], schema=TEXTS)


@tokenizer.shard
def tokenizer_files(texts: Sequence[pa.Table], settings: Tokenize) -> pa.Table:
    """The FILES of the tokenizer that the settings ask for; `texts` counts only when it is trained.

    Raises UserError when the settings name no tokenizer or one that cannot be read.
    """
    if settings.tokenizer == "trained":
        stream = (text.as_py() for table in texts for text in table["text"])
        files = to_files(train(stream, settings.vocab_size))
    elif settings.folder:
        files = read_files(settings.folder)
        from_files(files, settings.folder)
    else:
        files = to_files(named(settings.tokenizer))
    return files_table(files)


def files_table(files: dict[str, bytes]) -> pa.Table:
    """The FILES table of a tokenizer's files, as the tokenizer stage makes it."""
    return pa.table([list(files), list(files.values())], schema=FILES)


@lru_cache(maxsize=2)
def _encoding(ranks: bytes, about: bytes) -> tiktoken.Encoding:
    return from_files({RANKS: ranks, DESCRIPTION: about})


def encoding_of(files: pa.Table) -> tiktoken.Encoding:
    """The encoding of a FILES table; built once for a process."""
    held = dict(zip(files["name"].to_pylist(), files["data"].to_pylist(), strict=True))
    return _encoding(held[RANKS], held[DESCRIPTION])


@measure.shard
def measures(documents: pa.Table, signals: pa.Table, kept: pa.Table, tokenizer: pa.Table,
             settings: Tokenize) -> pa.Table:
    """The MEASURES of a shard: for each source and language its kept documents and their bytes, and the tokens of a
    sample (the documents of the lowest `chance`, until they hold `measure_bytes`; the last one cut short)."""
    encoding = encoding_of(tokenizer)
    rows, languages = take(documents, kept), take(signals, kept)["language"].to_pylist()
    texts = edits.applied(rows["text"], kept["spans"])
    sizes = pc.binary_length(texts).to_pylist()
    strata = list(zip(rows["source"].to_pylist(), languages, strict=True))
    sums = {stratum: [0, 0, 0, 0] for stratum in sorted(set(strata), key=lambda s: (s[0] or "", s[1] or ""))}
    for i in np.argsort(chance(kept["doc_id"], 0), kind="stable").tolist():
        entry = sums[strata[i]]
        entry[0] += 1
        entry[1] += sizes[i]
        room = settings.measure_bytes - entry[2]
        if room > 0 and sizes[i]:
            text = texts[i].as_py()[:room]
            entry[2] += len(text.encode())
            entry[3] += len(encode(encoding, text))
    columns = zip(*((*stratum, *entry) for stratum, entry in sums.items()), strict=True) if sums else [[]] * 6
    return pa.table([list(column) for column in columns], schema=MEASURES)


def tokens_schema(n_vocab: int) -> pa.Schema:
    """TOKENS, with list<uint32> where ids do not fit into uint16."""
    if n_vocab <= 1 << 16:
        return TOKENS
    return TOKENS.set(TOKENS.get_field_index("tokens"), pa.field("tokens", pa.list_(pa.uint32())))


@tokenize.shard
def token_shard(documents: Sequence[pa.Table], spans: Sequence[pa.Table], plan: pa.Table, tokenizer: pa.Table,
                settings: Tokenize, *, shards: Sequence[int]) -> pa.Table:
    """One token shard: the passes of `plan`, in its order, each ending with the end-of-text token.

    Args:
        documents, spans: tables of the document shards that the plan names.
        plan: the PLAN rows of this token shard.
        shards: the ordinals that `plan` has for `documents` and `spans`, in their order.

    Decoding a row without its last token gives the edited text exactly, or where the tokenizer reads NFC, its NFC;
    n_bytes is of the edited text, and n_tokens counts the last token too.
    Raises ValueError when plan, documents and spans do not belong together.
    """
    encoding = encoding_of(tokenizer)
    schema = tokens_schema(encoding.n_vocab)
    dtype = schema.field("tokens").type.value_type.to_pandas_dtype()
    shard, row = plan["shard"].to_numpy(), plan["row"].to_numpy()
    place = {ordinal: i for i, ordinal in enumerate(shards)}
    runs = np.flatnonzero(np.diff(shard, prepend=-1))                   # where the plan turns to another shard
    arrays, domains, n_bytes = [np.empty(0, dtype)], [pa.array([], pa.string())], []
    for begin, end in zip(runs, np.append(runs, len(plan))[1:], strict=True):
        table, rows = documents[place[int(shard[begin])]], row[begin:end]
        ids = table["doc_id"].combine_chunks().take(pa.array(rows))
        if not id_bytes(ids).equals(id_bytes(plan["doc_id"].slice(begin, end - begin))):
            raise ValueError(f"the plan does not belong to document shard {shard[begin]}: row and doc_id disagree")
        domains += table["domain"].take(pa.array(rows)).chunks
        for text in edited(table, spans[place[int(shard[begin])]], rows).to_pylist():
            n_bytes.append(len(text.encode()))
            arrays.append(np.array([*encode(encoding, text), encoding.eot_token], dtype))
    lengths = np.array([len(a) for a in arrays[1:]], np.int64)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(arrays)), type=schema.field("tokens").type)
    return pa.table([plan["doc_id"], plan["source"], pa.chunked_array(domains), plan["language"], plan["repeat"],
                     pa.array(n_bytes, pa.int32()), pa.array(lengths.astype(np.int32)), lists], schema=schema)
