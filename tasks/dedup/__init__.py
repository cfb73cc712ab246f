"""Deduplication over all shards of a build: by URL, by text, by similarity.

Five steps, each a stage, because what is compared is spread over the whole build:

    bands    a shard          signals                               -> its rows of the band index
    exact    the build        documents of all shards               -> decisions of the URL and exact rules
    pairs    a hash range     bands and signals of all shards, exact -> verified near-duplicate pairs
    decide   the build        documents (ids) of all shards, exact, pairs of all ranges -> all decisions
    dedup    a shard          documents, decisions                  -> KEPT and fates

The URL and exact rules come before the pairs, so that a bucket's first documents are not crowded out by copies that
are gone already.
"""

from tasks.dedup.lsh import bands, pairs
from tasks.dedup.settings import BANDS, DECISIONS, PAIRS, Dedup
from tasks.dedup.survivors import decide, dedup, exact

__all__ = ["BANDS", "DECISIONS", "PAIRS", "Dedup", "bands", "decide", "dedup", "exact", "pairs"]
