"""annotate: every signal of every document, computed once and stored beside the text.

Deciding is for `tasks.filter`; here is only measuring. What a document measures depends on its text and the
settings alone. `SIGNALS` names and defines the columns.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from tasks.annotate.language import UNDETERMINED, Language, identify
from tasks.annotate.lexicon import WordLists
from tasks.annotate.measure import TEXT, byte_lengths, text_signals
from tasks.annotate.minhash import PERMUTATIONS
from tasks.annotate.quality import Quality, quality_scores
from tasks.schema import LINES, UUID, all_rows
from tasks.spans import applied, matching
from tasks.stage import Stage

SIGNALS = pa.schema([
    ("doc_id", UUID),
    ("row", pa.int32()),                        # index in the documents shard
    ("n_bytes", pa.int32()),                    # of the text in UTF-8
    *TEXT.items(),
    ("n_removed_lines", pa.int32()),            # by the stage `lines`; what follows is measured without them
    ("removed_word_fraction", pa.float64()),    # words in those lines / words of the text as it was extracted
    # ISO 639-1 or else 639-3; "und" (undetermined) when there are no letters, or too few of the language's script
    ("language", pa.string()),
    ("language_score", pa.float64()),           # the model's probability, 0 to 1
    # Of the bytes of the passages that the language model reads (tasks.annotate.passages), the share of those that are
    # in another language than the document, with a probability of at least 0.95; the commonest such language.
    ("other_language_fraction", pa.float64()),
    ("second_language", pa.string()),
    ("quality_score", pa.float64()),            # tasks.annotate.quality; NULL without a classifier
    ("minhash", pa.list_(pa.uint32(), PERMUTATIONS)),   # tasks.annotate.minhash
])

_NO_LANGUAGE = {"language": UNDETERMINED, "language_score": 0.0, "other_language_fraction": 0.0,
                "second_language": pa.scalar(None, pa.string())}


class Annotate(BaseModel):
    """Settings of the annotate stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Language = Field(default_factory=Language, description="How languages are identified.")
    stop_words: WordLists | None = Field(None, description="Short lists of stop words instead of the default ones.")
    bad_words: WordLists | None = Field(None, description="Bad words and phrases; without it n_bad_words is NULL.")
    quality: Quality = Field(default_factory=Quality, description="The classifier of quality, if any.")


# Models and word lists are pinned by their sha256, which are settings: no resources beside these.
annotate = Stage("annotate", version=3, settings=Annotate,
                 needs={"documents": ["doc_id", "text"], "lines": LINES.names},
                 makes=SIGNALS, conserves="documents", libraries=("py3langid", "pycld2", "unicodedata", "justext"))


@annotate.shard
def signals(documents: pa.Table, lines: pa.Table, settings: Annotate) -> pa.Table:
    """SIGNALS of a shard of documents, row for row, measured without the lines that were cut. A missing text counts as
    an empty one.

    Raises UserError when a file that the settings name (a model, word lists) is missing or not the one pinned.
    """
    texts = applied(documents["text"], matching(all_rows(documents), lines))
    languages = identify(texts, byte_lengths(texts) > 0, settings.language)
    measured, signatures = text_signals(texts, languages["language"], settings.stop_words, settings.bad_words)
    wordless = pc.equal(measured["n_words"], 0)
    columns = {"doc_id": documents["doc_id"], "row": np.arange(len(documents), dtype=np.int32),
               "n_bytes": byte_lengths(texts).astype(np.int32), **measured}
    cut, words = (lines[name].to_numpy() for name in ("n_cut_words", "n_words"))
    columns |= {"n_removed_lines": lines["n_cut_lines"], "removed_word_fraction": cut / np.maximum(words, 1)}
    columns |= {name: pc.if_else(wordless, nothing, languages[name]) for name, nothing in _NO_LANGUAGE.items()}
    columns["quality_score"] = quality_scores(texts, settings.quality)
    columns["minhash"] = pa.FixedSizeListArray.from_arrays(pa.array(signatures.ravel()), PERMUTATIONS)
    return pa.table(columns, schema=SIGNALS)
