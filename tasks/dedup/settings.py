"""Settings and tables of deduplication."""

from math import ceil

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.schema import UUID

PERMUTATIONS = 112          # of the signature that `annotate` makes

# The persistent index: one row for each document and LSH band, sorted by (hash, band, row), so that a
# range of hashes is a run of rows.
BANDS = pa.schema([("band", pa.uint8()), ("hash", pa.uint64()), ("doc_id", UUID), ("row", pa.int32())])

# Verified pairs: `a` came before `b`; `equal` is the number of equal positions of the two signatures.
PAIRS = pa.schema([("a_shard", pa.int32()), ("a_row", pa.int32()), ("b_shard", pa.int32()), ("b_row", pa.int32()),
                   ("equal", pa.int16())])

# One row for each dropped document of a build; the rest survived.
DECISIONS = pa.schema([("doc_id", UUID), ("shard", pa.int32()), ("row", pa.int32()), ("rule", pa.string()),
                       ("duplicate_of", UUID), ("similarity", pa.float64())])


class Dedup(BaseModel):
    """What counts as a duplicate. The 14 x 8 banding and the 0.75 it aims at are FineWeb's (Penedo et al. 2024,
    https://arxiv.org/abs/2406.17557, section 3.4): a pair of Jaccard similarity s meets in some band with probability
    1 - (1 - s^8)^14, that is 0.77 at 0.75, 0.92 at 0.8 and 0.9996 at 0.9."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: bool = Field(True, description="of the documents of one URL, keep the one fetched last")
    exact: bool = Field(True, description="of the documents of one text (case and white space aside), keep the first")
    near: bool = Field(True, description="drop documents that are similar to a survivor that came before")
    threshold: float = Field(0.75, gt=0, le=1, description="estimated Jaccard similarity of the word 5-grams from "
                             "which a document is a near-duplicate; the estimate's standard error is 0.041 at 0.75")
    bands: int = Field(14, ge=1, le=PERMUTATIONS, description="LSH bands; more find less similar pairs")
    rows: int = Field(8, ge=1, le=PERMUTATIONS, description="signature positions in a band; more find fewer pairs")
    min_words: int = Field(20, ge=0, description="documents with fewer words are not near-deduplicated: a handful of "
                           "shingles says little")
    first: int = Field(16, ge=1, description="a document is compared with this many of the first documents of each "
                       "of its buckets: bounds the work on a bucket of n documents to n times this")
    partition_rows: int = Field(8_000_000, ge=1, description="rows of the band index that one process handles at once")

    @model_validator(mode="after")
    def _fits(self):
        if self.bands * self.rows > PERMUTATIONS:
            raise ValueError(f"dedup.bands x dedup.rows is {self.bands * self.rows}, but a signature has "
                             f"{PERMUTATIONS} positions; lower one of them")
        return self

    @property
    def min_equal(self) -> int:
        """Equal signature positions from which a pair is verified."""
        return ceil(self.threshold * PERMUTATIONS - 1e-9)

    def partitions(self, documents: int) -> int:
        """Into how many hash ranges to split the pairs of a build of so many documents."""
        return max(1, ceil(documents * self.bands / self.partition_rows))
