"""The mixture: how often each document is seen.

A stratum is a source and a language. Weights say what share of the tokens each source and each language should
have; a document's place in its stratum is a hash of its doc_id and the seed, so a refresh that moves a stratum's
fraction a little changes few decisions. Four steps:

    measure  a shard    documents (text), signals, kept, tokenizer -> bytes and tokens by stratum (tasks.tokenize)
    mixture  the build  measures of all shards                     -> MIXTURE: each stratum's share and epochs
    sample   a shard    documents, signals, kept, mixture          -> SAMPLED and fates
    plan     the build  sampled of all shards, mixture             -> PLAN: every pass over every document, in order
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import UserError
from tasks.schema import TOKENS, UUID, fates, id_words, take
from tasks.stage import Result, Stage

MEASURES = pa.schema([("source", pa.string()), ("language", pa.string()), ("documents", pa.int64()),
                      ("bytes", pa.int64()),                    # UTF-8 bytes of the kept documents
                      ("sampled_bytes", pa.int64()), ("sampled_tokens", pa.int64())])

# One row for each stratum, sorted by source and language.
MIXTURE = pa.schema([("source", pa.string()), ("language", pa.string()), ("documents", pa.int64()),
                     ("bytes", pa.int64()), ("tokens_per_byte", pa.float64()),
                     ("tokens", pa.float64()),                  # in one pass over all its documents
                     ("weight", pa.float64()),                  # the share of all tokens that was asked for
                     ("epochs", pa.float64())])                 # passes over its documents; the fraction by hash

# The kept documents that are sampled, and how often.
SAMPLED = pa.schema([("doc_id", UUID), ("row", pa.int32()), ("source", pa.string()), ("language", pa.string()),
                     ("n_bytes", pa.int32()), ("repeats", pa.int16())])

# One row for each pass over a document, sorted by (repeat, shard, row): the passes over a document lie far apart,
# so that packing seldom puts two copies of it into one training sample (where each attends to itself alone).
PLAN = pa.schema([("doc_id", UUID), ("shard", pa.int32()), ("row", pa.int32()), ("repeat", pa.int16()),
                  ("token_shard", pa.int32()), ("source", pa.string()), ("language", pa.string()),
                  ("weight", pa.float64()), ("planned_tokens", pa.int64())])

ORIGIN = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]


class Sample(BaseModel):
    """The mixture by source and language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[str, float] = Field({}, description="weights of sources relative to each other: those listed share "
                                      "their natural part of the tokens in this proportion; the rest keep theirs")
    languages: dict[str, float] = Field({}, description="weights of languages, likewise")
    target_tokens: int | None = Field(None, gt=0, description="tokens to plan for; as many as one pass has when unset")
    max_epochs: float = Field(4.0, gt=0, description="passes over a document at most: up to 4 are as good as new data "
                              "(Muennighoff et al. 2023, https://arxiv.org/abs/2305.16264)")
    seed: int = Field(0, ge=0, lt=2**63, description="of the choice of documents")


mixture = Stage("mixture", version=1, settings=Sample, makes=MIXTURE, needs={"measures": MEASURES.names})
sample = Stage("sample", version=1, settings=Sample, makes=SAMPLED, conserves="kept",
               needs={"documents": ORIGIN, "signals": ["doc_id", "language", "n_bytes"], "kept": ["doc_id", "row"],
                      "mixture": ["source", "language", "epochs"]})
plan = Stage("plan", version=1, settings=Sample, makes=PLAN,
             needs={"sampled": SAMPLED.names, "mixture": ["source", "language", "weight", "tokens_per_byte"]})


def _targets(shares: np.ndarray, names: list[str], weights: dict[str, float], setting: str) -> dict[str, float]:
    """What share of the tokens each name should have, from the natural shares of the strata that carry the names."""
    natural: dict[str, float] = {}
    for name, share in zip(names, shares.tolist(), strict=True):
        natural[name] = natural.get(name, 0.0) + share
    for name, weight in weights.items():
        if name not in natural:
            near = get_close_matches(name, filter(None, natural), 1) or sorted(filter(None, natural))[:1]
            raise UserError(f"sample.{setting} names {name!r}, but no kept document has it; " +
                            (f"the nearest is {near[0]!r}" if near else "no document was kept at all"))
        if not 0 <= weight < float("inf"):
            raise UserError(f"sample.{setting}.{name} is {weight}; a weight is a number from 0 up")
    listed = sum(natural[name] for name in weights)
    total = sum(weights.values())
    target = {name: listed * weights[name] / total if name in weights and total else
              0.0 if name in weights else share for name, share in natural.items()}
    whole = sum(target.values())
    if not whole:
        raise UserError(f"sample.{setting} gives every document the weight 0; give one a weight above 0")
    return {name: share / whole for name, share in target.items()}


def rake(natural: np.ndarray, axes: Sequence[tuple[list[str], dict[str, float], str]]) -> np.ndarray:
    """Shares of the strata (n,) whose sums by source and by language are the wanted ones, as near to the natural
    proportions as can be: iterative proportional fitting (Deming and Stephan 1940).

    axes: for each axis the stratum's names (n), the weights and the setting they come from. An axis without weights
    is left free. Wishes that contradict each other end in a compromise; the later axis is then met.
    """
    shares = natural / natural.sum()
    wanted = [(names, _targets(shares, names, weights, setting)) for names, weights, setting in axes if weights]
    for _ in range(200):
        before = shares
        for names, target in wanted:
            sums = dict.fromkeys(target, 0.0)
            for name, share in zip(names, shares.tolist(), strict=True):
                sums[name] += share
            shares = shares * np.array([target[name] / sums[name] if sums[name] else 0.0 for name in names])
        if not shares.sum():
            raise UserError("sample.sources and sample.languages together leave no document; raise a weight from 0")
        shares = shares / shares.sum()
        if np.abs(shares - before).max() < 1e-12:
            break
    return shares


def fill(shares: np.ndarray, limits: np.ndarray, target: float) -> np.ndarray:
    """Tokens by stratum (n,) in proportion to `shares`, none above its limit, adding up to `target` where they can:
    what a full stratum cannot give, the others give in their proportion."""
    tokens, free = np.zeros(len(shares)), shares > 0
    while free.any():
        tokens[free] = max(target - tokens[~free].sum(), 0) * shares[free] / shares[free].sum()
        over = free & (tokens > limits)
        if not over.any():
            break
        tokens[over] = limits[over]
        free &= ~over
    return tokens


@mixture.shard
def strata(measures: Sequence[pa.Table], settings: Sample) -> pa.Table:
    """The MIXTURE of a build from the MEASURES of its shards.

    A stratum without measured text (or none with a token) takes the tokens per byte of the whole corpus.
    Raises UserError when a weight names a source or language that no kept document has.
    """
    sums = ["documents", "bytes", "sampled_bytes", "sampled_tokens"]
    rows = pa.concat_tables([MEASURES.empty_table(), *measures]).group_by(["source", "language"]).aggregate(
        [(name, "sum") for name in sums]).sort_by([("source", "ascending"), ("language", "ascending")])
    source, language = rows["source"].to_pylist(), rows["language"].to_pylist()
    documents, size, sampled_bytes, sampled_tokens = (
        rows[f"{name}_sum"].to_numpy().astype(np.float64) for name in sums)
    average = sampled_tokens.sum() / sampled_bytes.sum() if sampled_bytes.sum() else 0.25
    rate = np.divide(sampled_tokens, sampled_bytes, out=np.full(len(rows), average), where=sampled_bytes > 0)
    natural = size * rate + documents                           # each document ends with the end-of-text token
    if len(rows):
        shares = rake(natural, [(source, settings.sources, "sources"), (language, settings.languages, "languages")])
        target = settings.target_tokens or natural.sum()
        epochs = np.round(fill(shares, natural * settings.max_epochs, target) / natural, 9)
    else:
        shares = epochs = np.empty(0)
    return pa.table([rows["source"], rows["language"], rows["documents_sum"], rows["bytes_sum"], rate, natural,
                     shares, epochs], schema=MIXTURE)


def chance(doc_ids: pa.ChunkedArray | pa.Array, seed: int) -> np.ndarray:
    """A number in [0, 1) for each id (n,), a function of the id and the seed alone; splitmix64's finaliser."""
    words = id_words(doc_ids).astype(np.uint64)
    with np.errstate(over="ignore"):
        h = words[:, 0] ^ (words[:, 1] * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((h ^ (h >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _of_stratum(table: pa.Table, strata: pa.Table, column: str) -> np.ndarray:
    """The stratum's value of `column` for each row of a table with source and language."""
    values = dict(zip(zip(strata["source"].to_pylist(), strata["language"].to_pylist(), strict=True),
                      strata[column].to_pylist(), strict=True))
    pairs = zip(table["source"].to_pylist(), table["language"].to_pylist(), strict=True)
    return np.fromiter((values[pair] for pair in pairs), np.float64, len(table))


@sample.shard
def sampled(documents: pa.Table, signals: pa.Table, kept: pa.Table, mixture: pa.Table, settings: Sample) -> Result:
    """How often each kept document of a shard is seen: its stratum's whole epochs, and once more when its `chance`
    lies below the fraction. Those that are never seen get the fate `weight`."""
    rows, told = take(documents, kept), take(signals, kept)
    table = pa.table({"doc_id": kept["doc_id"], "row": kept["row"], "source": rows["source"],
                      "language": told["language"], "n_bytes": told["n_bytes"].cast(pa.int32())})
    epochs, drawn = _of_stratum(table, mixture, "epochs"), chance(kept["doc_id"], settings.seed)
    whole = np.floor(epochs)
    repeats = (whole + (drawn < epochs - whole)).astype(np.int16)
    gone = np.flatnonzero(repeats == 0)
    seen = table.append_column("repeats", pa.array(repeats)).filter(pa.array(repeats > 0))
    return Result(seen.combine_chunks().cast(SAMPLED),
                  fates(documents, kept["row"].to_numpy()[gone], "sample", "weight", value=drawn[gone],
                        threshold=epochs[gone]))


def cuts(tokens: np.ndarray, drawn: np.ndarray, size: int, least: int = 1) -> np.ndarray:
    """The token shard (n,) of each planned pass, from its tokens and its `chance`.

    Shards hold `size` tokens, 10 % more or less, and lie at passes picked by their chance, not by counting from the
    front: where documents come or go, the cuts a little further on stay where they were, and so do the shards
    between them. A corpus of fewer than `least` such shards is cut into `least` even ones.
    """
    end = np.cumsum(tokens)
    total = int(end[-1]) if len(end) else 0
    if round(total / size) <= max(least, 1):
        even = np.minimum((end - tokens) * max(least, 1) // max(total, 1), max(least, 1) - 1)
        return np.unique(even, return_inverse=True)[1].astype(np.int32)     # no empty shards
    starts, done = [0], 0
    while total - done > 1.5 * size:
        low, high = np.searchsorted(end, [done + 0.9 * size, done + 1.1 * size])
        cut = low + 1 + int(np.argmin(drawn[low:max(high, low + 1)]))       # after the pass that the hash picks
        starts.append(cut)
        done = int(end[cut - 1])
    return (np.searchsorted(starts, np.arange(len(tokens)), side="right") - 1).astype(np.int32)


@plan.shard
def planned(sampled: Sequence[pa.Table], mixture: pa.Table, settings: Sample, *, shard_tokens: int = 100_000_000,
            min_shards: int = 1) -> pa.Table:
    """The PLAN of a build from the SAMPLED tables of its shards, in order of arrival.

    Args:
        shard_tokens, min_shards: of `tasks.tokenize.Tokenize`.
    """
    parts = [table.append_column("shard", pa.array(np.full(len(table), i, np.int32)))
             for i, table in enumerate(sampled)]
    table = pa.concat_tables(parts or [SAMPLED.append(pa.field("shard", pa.int32())).empty_table()]).combine_chunks()
    repeats = table["repeats"].to_numpy()
    index = np.repeat(np.arange(len(table)), repeats)
    repeat = np.arange(len(index)) - np.repeat(np.cumsum(repeats, dtype=np.int64) - repeats, repeats)
    order = np.lexsort((index, repeat))
    table, repeat = table.take(pa.array(index[order])), repeat[order]
    tokens = np.rint(table["n_bytes"].to_numpy() * _of_stratum(table, mixture, "tokens_per_byte")).astype(np.int64) + 1
    shards = cuts(tokens, chance(table["doc_id"], settings.seed + 1), shard_tokens, min_shards)
    return pa.table([table["doc_id"], table["shard"], table["row"], repeat.astype(np.int16), shards, table["source"],
                     table["language"], _of_stratum(table, mixture, "weight"), tokens], schema=PLAN)


def achieved(mixture: pa.Table, plan: pa.Table, tokens: Sequence[pa.Table]) -> list[dict]:
    """The manifest's mixture: for each stratum the share asked for, the tokens planned and those that came.

    Args:
        tokens: the token shards' tables; only source, language and n_tokens are read.

    `documents` counts distinct documents of the plan, `epochs` the passes over the stratum's kept bytes.
    """
    groups = ["source", "language"]
    read = [*groups, "n_tokens"]
    came = pa.concat_tables([pa.schema([TOKENS.field(name) for name in read]).empty_table(),
                             *(table.select(read) for table in tokens)])
    first = plan.append_column("first", pc.cast(pc.equal(plan["repeat"], 0), pa.int64()))
    wished = {(r["source"], r["language"]): r for r in first.group_by(groups).aggregate(
        [("planned_tokens", "sum"), ("first", "sum")]).to_pylist()}
    got = {(r["source"], r["language"]): r["n_tokens_sum"]
           for r in came.group_by(groups).aggregate([("n_tokens", "sum")]).to_pylist()}
    out = []
    for row in mixture.to_pylist():
        key = row["source"], row["language"]
        wish = wished.get(key, {"planned_tokens_sum": 0, "first_sum": 0})
        out.append({"source": row["source"], "language": row["language"], "documents": wish["first_sum"],
                    "weight": round(row["weight"], 6), "planned_tokens": wish["planned_tokens_sum"],
                    "tokens": got.get(key, 0), "epochs": round(row["epochs"], 6)})
    return out
