"""annotate: every signal of every document, computed once and stored beside the text.

Deciding is for `tasks.filter`; here is only measuring. What a document measures depends on its text and the
settings alone. `SIGNALS` names and defines the columns.
"""

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.annotate.language import Language, identify
from tasks.annotate.measure import LEXICAL, TEXT, byte_lengths, measure_texts
from tasks.annotate.minhash import PERMUTATIONS
from tasks.lines import LINES
from tasks.schema import UUID, all_rows
from tasks.spans import applied, matching
from tasks.stage import Stage

SIGNALS = pa.schema([
    ("doc_id", UUID),
    ("row", pa.int32()),                        # index in the documents shard
    ("n_bytes", pa.int32()),                    # of the text in UTF-8
    *TEXT.items(),
    *LEXICAL.items(),
    ("n_removed_lines", pa.int32()),            # by the stage `lines`; what follows is measured without them
    ("removed_word_fraction", pa.float64()),    # words in those lines / words of the text as it was extracted
    ("language", pa.string()),                  # ISO 639-1 or else 639-3; "und" when there are no words
    ("language_score", pa.float64()),           # the model's probability, 0 to 1
    ("minhash", pa.list_(pa.uint32(), PERMUTATIONS)),   # tasks.annotate.minhash
])


class Annotate(BaseModel):
    """Settings of the annotate stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Language = Field(default_factory=Language, description="How languages are identified.")


annotate = Stage("annotate", version=2, settings=Annotate,
                 needs={"documents": ["doc_id", "text"], "lines": LINES.names},
                 makes=SIGNALS, conserves="documents", libraries=("py3langid", "unicodedata"),
                 resources=lambda settings: [settings.language.model] if settings.language.model else [])


@annotate.shard
def signals(documents: pa.Table, lines: pa.Table, settings: Annotate) -> pa.Table:
    """SIGNALS of a shard of documents, row for row, measured without the lines that were cut. A missing text counts as
    an empty one.

    Raises UserError when the language model that the settings name is missing or another than they say.
    """
    texts = applied(documents["text"], matching(all_rows(documents), lines))
    measured, signatures = measure_texts(texts)
    languages, scores = identify(texts, measured[:, list(TEXT).index("n_words")] > 0, settings.language)
    columns = {"doc_id": documents["doc_id"], "row": np.arange(len(documents), dtype=np.int32),
               "n_bytes": byte_lengths(texts).astype(np.int32)}
    for index, (name, kind) in enumerate(TEXT.items()):
        if index < measured.shape[1]:
            columns[name] = measured[:, index].astype(kind.to_pandas_dtype())
    cut, words = (lines[name].to_numpy() for name in ("n_cut_words", "n_words"))
    columns |= {"n_removed_lines": lines["n_cut_lines"], "removed_word_fraction": cut / np.maximum(words, 1)}
    columns |= {name: pa.nulls(len(texts), kind) for name, kind in (TEXT | LEXICAL).items() if name not in columns}
    columns |= {"language": languages, "language_score": scores,
                "minhash": pa.FixedSizeListArray.from_arrays(pa.array(signatures.ravel()), PERMUTATIONS)}
    return pa.table(columns, schema=SIGNALS)
