"""annotate: every signal of every document, computed once and stored beside the text.

Deciding is for `tasks.filter`; here is only measuring. What a document measures depends on its text and the
settings alone. `SIGNALS` names and defines the columns.
"""

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.annotate.language import Language, identify
from tasks.annotate.minhash import PERMUTATIONS, permutations
from tasks.annotate.words import code_points, landmarks
from tasks.schema import UUID
from tasks.stage import Stage

# Sizes count Unicode code points unless they say bytes. A word is what tasks.annotate.words says; a token is a
# maximal run of anything but white space; a line is what lies between line feeds, trimmed, if anything is left;
# a paragraph is a run of such lines without a blank one between. A fraction of nothing is 0. Format characters
# (category Cf) count in n_chars and in a line's length only.
_TEXT = {                    # in the order of tasks.annotate.kernel's columns
    "n_chars": pa.int32(),
    "n_words": pa.int32(),
    "n_lines": pa.int32(),
    "n_paragraphs": pa.int32(),
    "n_sentences": pa.int32(),                  # runs of words that end at . ! ? … and their like before white space
                                                # (or at a CJK one), or at a line's end; abbreviations count as ends
    "mean_word_length": pa.float64(),
    "max_token_length": pa.int32(),
    "mean_words_per_line": pa.float64(),
    "unique_word_fraction": pa.float64(),       # distinct words / words (RedPajama-V2)
    "hash_word_ratio": pa.float64(),            # `#` / words; may exceed 1
    "ellipsis_word_ratio": pa.float64(),        # … and runs of three or more full stops / words; may exceed 1
    "letter_token_fraction": pa.float64(),      # tokens with at least one letter / tokens
    "n_stop_words": pa.int32(),                 # how many of the be to of and that have with occur: 0 to 8
    "newline_word_ratio": pa.float64(),         # line feeds / words; may exceed 1
    "bullet_line_fraction": pa.float64(),       # lines that begin with - * • ‣ ▶ ◀ ◦ ■ □ ▪ ▫ ● ○ · –
    "ellipsis_line_fraction": pa.float64(),     # lines that end in an ellipsis, closing quotes and brackets skipped
    "terminal_line_fraction": pa.float64(),     # lines that end in . ! ? … and their like, closing quotes skipped
    "short_line_fraction": pa.float64(),        # lines of at most 30 characters
    "n_curly_brackets": pa.int32(),             # `{`
    "lorem_ipsum": pa.bool_(),                  # the two words, in one line
    "javascript_word_fraction": pa.float64(),   # words in lines that hold the word javascript / words
    "policy_word_fraction": pa.float64(),       # words in lines that hold one of C4's policy phrases / words
    "c4_sentences": pa.int32(),                 # sentences in the lines that C4's line rules leave: 3 or more tokens,
                                                # none above 1,000 characters, no javascript, no policy phrase, a
                                                # terminal end that is no ellipsis
    "c4_sentences_any_end": pa.int32(),         # the same without the rule on line ends
    "duplicate_line_fraction": pa.float64(),    # lines equal to an earlier one, but for white space / lines
    "duplicate_line_char_fraction": pa.float64(),       # their characters / characters of all lines
    "duplicate_paragraph_fraction": pa.float64(),
    "duplicate_paragraph_char_fraction": pa.float64(),
    # Of the n-gram that occurs most often, and at least twice (ties: the longest, then the first): the characters of
    # the words that its occurrences cover, each word counted once / characters of all words.
    **{f"top_{n}gram_char_fraction": pa.float64() for n in (2, 3, 4)},
    # The characters of the words that n-grams which occurred before cover, each word counted once / those of all words.
    **{f"duplicate_{n}gram_char_fraction": pa.float64() for n in range(5, 11)},
}

SIGNALS = pa.schema([
    ("doc_id", UUID),
    ("row", pa.int32()),                        # index in the documents shard
    ("n_bytes", pa.int32()),                    # of the text in UTF-8
    *_TEXT.items(),
    ("language", pa.string()),                  # ISO 639-1 or else 639-3; "und" when there are no words
    ("language_score", pa.float64()),           # the model's probability, 0 to 1
    ("minhash", pa.list_(pa.uint32(), PERMUTATIONS)),   # tasks.annotate.minhash
])


class Annotate(BaseModel):
    """Settings of the annotate stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Language = Field(default_factory=Language, description="How languages are identified.")


annotate = Stage("annotate", version=1, settings=Annotate, needs={"documents": ["doc_id", "text"]}, makes=SIGNALS,
                 conserves="documents", libraries=("py3langid", "unicodedata"),
                 resources=lambda settings: [settings.language.model] if settings.language.model else [])


@annotate.shard
def signals(documents: pa.Table, settings: Annotate) -> pa.Table:
    """SIGNALS of a shard of documents, row for row. A missing text counts as an empty one.

    Raises UserError when the language model that the settings name is missing or another than they say.
    """
    texts = documents["text"].cast(pa.large_string()).combine_chunks()
    if texts.null_count:
        texts = texts.fill_null("")
    measured, signatures = measure_texts(texts)
    languages, scores = identify(texts, measured[:, list(_TEXT).index("n_words")] > 0, settings.language)
    columns = {"doc_id": documents["doc_id"], "row": np.arange(len(documents), dtype=np.int32),
               "n_bytes": _byte_lengths(texts).astype(np.int32)}
    for index, (name, kind) in enumerate(_TEXT.items()):
        columns[name] = measured[:, index].astype(kind.to_pandas_dtype())
    columns |= {"language": languages, "language_score": scores,
                "minhash": pa.FixedSizeListArray.from_arrays(pa.array(signatures.ravel()), PERMUTATIONS)}
    return pa.table(columns, schema=SIGNALS)


def measure_texts(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's signals, float64 of shape (n, signals), and MinHash signatures, uint32 of shape (n, PERMUTATIONS).

    `texts` is a large_string array without nulls.
    """
    from tasks.annotate import kernel  # numba takes a second to import and load: only where it is used

    measured = np.zeros((len(texts), kernel.COLUMNS))
    signatures = np.full((len(texts), PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
    if len(texts):
        kernel.measure(_bytes(texts), _offsets(texts), code_points(), landmarks(), permutations(), measured, signatures)
    return measured, signatures


def _offsets(texts: pa.Array) -> np.ndarray:
    return np.frombuffer(texts.buffers()[1], np.int64, len(texts) + 1, 8 * texts.offset)


def _bytes(texts: pa.Array) -> np.ndarray:
    data = texts.buffers()[2]
    return np.frombuffer(data if data is not None else b"", np.uint8)


def _byte_lengths(texts: pa.Array) -> np.ndarray:
    return np.diff(_offsets(texts)) if len(texts) else np.empty(0, np.int64)
