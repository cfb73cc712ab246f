"""Who survives, of documents that are the same.

The order of arrival (shard, then row) decides everywhere, so the outcome is a function of the build's documents and
nothing else:

1. `url`: of the documents of one normalised URL, the one fetched last survives; of several, the first to arrive.
   Documents without a URL (rows of a dump) are nobody's copies by this rule.
2. `exact`: of the survivors with one content_id, the first to arrive.
3. `near`: going through the rest in order of arrival, a document is dropped when it is verified similar to one that
   came before *and survived*. Similarity is not carried over from a dropped document to the next, so a chain of
   pages that share a template does not swallow a corpus.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.dedup.lsh import check_ids
from tasks.dedup.settings import DECISIONS, PAIRS, PERMUTATIONS, Dedup
from tasks.dedup.url import normalized
from tasks.schema import KEPT, fates, id_array, id_bytes, id_words
from tasks.stage import Result, Stage

ORIGIN = ["doc_id", "url", "domain", "snapshot", "source", "warc_file", "warc_offset"]

exact = Stage("dedup-exact", version=2, settings=Dedup, makes=DECISIONS,
              needs={"documents": ["doc_id", "content_id", "url", "fetched_at"]})
decide = Stage("dedup-decide", version=1, settings=Dedup, makes=DECISIONS,
               needs={"documents": ["doc_id"], "exact": DECISIONS.names, "pairs": PAIRS.names})
dedup = Stage("dedup", version=1, settings=Dedup, makes=KEPT, conserves="documents",
              needs={"documents": ORIGIN, "decisions": DECISIONS.names})


def _losers(order: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From rows in groups, the winner first, `same[i]` saying that i belongs with i - 1: the losers, their winners."""
    head = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    return order[same], order[head[same]]


@exact.shard
def exact_decisions(documents: Sequence[pa.Table], settings: Dedup) -> pa.Table:
    """The URL and exact rules over all shards of a build, in order of arrival; DECISIONS sorted by (shard, row)."""
    documents = list(documents)
    sizes = [len(table) for table in documents]
    winner = np.full(sum(sizes), -1)
    if settings.url and len(winner):
        urls = pa.concat_arrays([normalized(t["url"]).cast(pa.large_string()) for t in documents])
        urls = pc.if_else(pc.equal(urls, ""), None, urls)
        codes = urls.dictionary_encode().indices.fill_null(-1).to_numpy()
        fetched = np.concatenate([t["fetched_at"].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
                                  for t in documents])
        order = np.lexsort((~fetched, codes))  # ~ reverses int64 without overflow; lexsort is stable: arrival last
        same = np.zeros(len(order), bool)
        same[1:] = (codes[order[1:]] == codes[order[:-1]]) & (codes[order[1:]] >= 0)
        losers, winners = _losers(order, same)
        winner[losers] = winners
    by_url = winner >= 0
    if settings.exact:
        alive = np.flatnonzero(~by_url)
        words = np.concatenate([id_words(t["content_id"]) for t in documents] or [np.empty((0, 2))])[alive]
        order = np.lexsort((words[:, 1], words[:, 0]))
        same = np.zeros(len(order), bool)
        same[1:] = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        losers, winners = _losers(alive[order], same)
        winner[losers] = winners
    dropped = np.flatnonzero(winner >= 0)
    shard = np.repeat(np.arange(len(sizes)), sizes)
    row = np.arange(len(winner)) - np.repeat(np.cumsum(sizes) - sizes, sizes).astype(int)
    names = shard << 32 | row
    rule = np.where(by_url[dropped], "url", "exact")
    similarity = pa.array(np.ones(len(dropped)), mask=by_url[dropped])  # of two fetches of a URL nothing was compared
    return _decisions(documents, names[dropped], names[winner[dropped]], rule, similarity)


def greedy(a: np.ndarray, b: np.ndarray, equal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of verified pairs (a before b), who is dropped, in favour of whom, at how many equal positions.

    b falls when some a survived; the most similar such a is named, the earliest of several.
    """
    order = np.lexsort((a, -equal.astype(np.int64), b))
    dropped: dict[int, tuple[int, int]] = {}
    for x, y, e in zip(a[order].tolist(), b[order].tolist(), equal[order].tolist(), strict=True):
        if y not in dropped and x not in dropped:
            dropped[y] = x, e
    losers = np.fromiter(dropped, np.int64, len(dropped))
    rest = np.array(list(dropped.values()), np.int64).reshape(-1, 2)
    return losers, rest[:, 0], rest[:, 1]


@decide.shard
def decisions(documents: Sequence[pa.Table], exact: pa.Table, pairs: Sequence[pa.Table], settings: Dedup) -> pa.Table:
    """All DECISIONS of a build, sorted by (shard, row).

    Args:
        documents: a table for each shard, in order of arrival.
        exact: what `exact_decisions` gave.
        pairs: what `lsh.verified` gave for each partition; a pair may be in several.
    """
    similar = pa.concat_tables([PAIRS.empty_table(), *pairs])
    columns = {name: similar[name].to_numpy().astype(np.int64) for name in PAIRS.names}
    losers, winners, equal = greedy(columns["a_shard"] << 32 | columns["a_row"],
                                    columns["b_shard"] << 32 | columns["b_row"], columns["equal"])
    near = _decisions(documents, losers, winners, np.full(len(losers), "near"), pa.array(equal / PERMUTATIONS))
    return pa.concat_tables([exact, near]).sort_by([("shard", "ascending"), ("row", "ascending")]).combine_chunks()


def _decisions(documents: Sequence[pa.Table], losers: np.ndarray, winners: np.ndarray, rule: np.ndarray,
               similarity: pa.Array) -> pa.Table:
    """DECISIONS from document names (shard << 32 | row)."""
    names, back = np.unique(np.concatenate([losers, winners]), return_inverse=True)
    shards = names >> 32
    ids = []
    for shard in np.unique(shards).tolist():
        rows = names[slice(*np.searchsorted(shards, [shard, shard + 1]))] & 0xFFFFFFFF
        ids.append(id_bytes(documents[shard]["doc_id"]).take(pa.array(rows)))
    ids = pa.concat_arrays(ids) if ids else pa.array([], pa.binary(16))
    return pa.table([id_array(ids.take(pa.array(back[:len(losers)]))), (losers >> 32).astype(np.int32),
                     (losers & 0xFFFFFFFF).astype(np.int32), pa.array(rule.tolist(), pa.string()),
                     id_array(ids.take(pa.array(back[len(losers):]))), similarity], schema=DECISIONS)


@dedup.shard
def survivors(documents: pa.Table, decisions: pa.Table, settings: Dedup, *, shard: int | None = None) -> Result:
    """One shard's survivors and the fates of the rest.

    Args:
        documents: the shard's origin columns.
        decisions: this shard's part of the decisions, or all of them with `shard` saying which part counts.

    Raises ValueError when the decisions belong to another shard: row and doc_id disagree.
    """
    if shard is not None:
        decisions = decisions.filter(pa.array(decisions["shard"].to_numpy() == shard))
    rows = decisions["row"].to_numpy()
    if len(rows) and rows.max() >= len(documents):
        raise ValueError(f"the decisions name row {rows.max()} of shard {shard}, which has {len(documents)} rows")
    check_ids(documents["doc_id"].combine_chunks().take(pa.array(rows)), decisions["doc_id"].combine_chunks(), shard)
    near = [rule == "near" for rule in decisions["rule"].to_pylist()]
    similarity = decisions["similarity"].to_pylist()
    dropped = fates(documents, rows, "dedup", decisions["rule"].to_pylist(), similarity=similarity,
                    value=[s if n else None for s, n in zip(similarity, near, strict=True)],
                    threshold=[settings.threshold if n else None for n in near],
                    duplicate_of=id_bytes(decisions["duplicate_of"]))
    alive = np.ones(len(documents), bool)
    alive[rows] = False
    kept = np.flatnonzero(alive).astype(np.int32)
    return Result(pa.table([documents["doc_id"].combine_chunks().take(pa.array(kept)), kept], schema=KEPT), dropped)
