"""The signals of a text: their definitions, and their measuring for arrays of texts."""

import numpy as np
import pyarrow as pa

from tasks.annotate.lexicon import NO_WORDS, lexicon
from tasks.annotate.minhash import PERMUTATIONS, permutations
from tasks.annotate.scanned import scanned
from tasks.spans import utf8

BATCH = 1 << 20              # bytes of text whose hashes stay in the processor's caches from one kernel to the next

# Sizes count Unicode code points unless they say bytes. A word is what tasks.words says; a token is a
# maximal run of anything but white space; a line is what lies between line feeds, trimmed, if anything is left;
# a paragraph is a run of such lines without a blank one between. A fraction of nothing is 0. Format characters
# (category Cf) count in n_chars and in a line's length only.
_SCANNED = {                 # in the order of tasks.annotate.scan's columns
    "n_chars": pa.int32(),
    "n_words": pa.int32(),
    "n_lines": pa.int32(),
    "n_paragraphs": pa.int32(),
    "n_sentences": pa.int32(),                  # runs of words that end at . ! ? … and their like before white space
                                                # (or at a CJK one), or at a line's end; abbreviations count as ends
    "mean_word_length": pa.float64(),
    "max_token_length": pa.int32(),
    "mean_words_per_line": pa.float64(),
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
    "n_pieces": pa.int32(),                     # words, and maximal runs of other characters but white space
    "letter_piece_fraction": pa.float64(),      # words with a letter / pieces (datatrove; RedPajama-V2: 1 - it)
    "all_caps_word_fraction": pa.float64(),     # words with upper-case letters and no other letters / words
    "curly_bracket_fraction": pa.float64(),     # `{` and `}` / characters
    "n_lorem_ipsum": pa.int32(),                # how often the two words stand in one line
    "uppercase_char_fraction": pa.float64(),    # upper-case letters / characters of all lines
    "digit_char_fraction": pa.float64(),        # digits and other numbers (category N*) / characters of all lines
    "uppercase_line_fraction": pa.float64(),    # lines more than half of whose characters are upper-case letters
    "numeric_line_fraction": pa.float64(),      # lines with a digit and no letter
    "counter_line_fraction": pa.float64(),      # lines of a number and one of the words likes, shares, comments ...
    "one_word_line_fraction": pa.float64(),     # lines of one word
    "mean_line_uppercase_fraction": pa.float64(),       # mean over lines of upper-case letters / characters
    "mean_line_digit_fraction": pa.float64(),           # mean over lines of digits / characters
}
_REPETITION = {              # in the order of tasks.annotate.ngrams' columns
    "duplicate_line_fraction": pa.float64(),    # lines equal to an earlier one, but for white space / lines
    "duplicate_line_char_fraction": pa.float64(),       # their characters / characters of all lines
    "duplicate_paragraph_fraction": pa.float64(),
    "duplicate_paragraph_char_fraction": pa.float64(),
    "unique_word_fraction": pa.float64(),       # distinct words / words (RedPajama-V2)
    "unigram_entropy": pa.float64(),            # of the distribution of words, in nats (RedPajama-V2)
    # Of the n-gram that occurs most often, and at least twice (ties: the longest, then the first): the characters of
    # the words that its occurrences cover, each word counted once / characters of all words.
    **{f"top_{n}gram_char_fraction": pa.float64() for n in (2, 3, 4)},
    # The characters of the words that n-grams which occurred before cover, each word counted once / those of all words.
    **{f"duplicate_{n}gram_char_fraction": pa.float64() for n in range(5, 11)},
    # The same with the first occurrence of what is repeated counted too, as RedPajama-V2 and DCLM have it.
    **{f"repeated_{n}gram_char_fraction": pa.float64() for n in range(5, 11)},
}
# What hangs on the language too: NULL where there is no list for it.
LEXICAL = {
    "n_language_stop_words": pa.int32(),        # distinct words of the language's short list (FineWeb-2's rule)
    "stop_word_fraction": pa.float64(),         # words of the language's long list / words (RedPajama-V2)
    "n_bad_words": pa.int32(),                  # words and phrases of `annotate.bad_words` (C4, RedPajama-V2)
}
TEXT = _SCANNED | _REPETITION | LEXICAL | {
    "compression_ratio": pa.float64(),          # bytes / bytes of the LZ4 block of tasks.annotate.compression
}


def text_signals(texts: pa.Array, languages: pa.Array, stop_words=None, bad_words=None) -> tuple[dict, np.ndarray]:
    """The columns of TEXT, and the MinHash signatures, uint32 of shape (n, PERMUTATIONS).

    `texts` is a large_string array without nulls; `languages` its languages' codes; `stop_words` and `bad_words` the
    settings' WordLists or None. Raises UserError when one of these files is missing or not the one that was pinned.
    """
    words = lexicon(stop_words, bad_words)
    codes = languages.to_pylist()
    numbers = np.array([words.languages.get(code, -1) for code in codes], np.int32)
    measured, signatures = measure_texts(texts, numbers, words)
    columns = {name: pa.array(measured[:, i].astype(kind.to_pandas_dtype()))
               for i, (name, kind) in enumerate(TEXT.items())}
    for name, known in zip(LEXICAL, (words.stop_words, words.long_lists, words.bad_words), strict=True):
        unknown = np.array([code not in known for code in codes], bool)
        columns[name] = pa.array(columns[name].to_numpy(), TEXT[name], mask=unknown)
    return columns, signatures


def measure_texts(texts: pa.Array, languages: np.ndarray | None = None, words=None) -> tuple[np.ndarray, np.ndarray]:
    """The kernels' signals, float64 of shape (n, len(TEXT)), and MinHash signatures, uint32 of shape (n, PERMUTATIONS).

    `texts` is a large_string array without nulls, `languages` (int32) the numbers of their languages in the lexicon
    `words`; without these nothing is looked up.
    """
    from tasks.annotate import compression, ngrams, signature  # numba takes a second to load: only where it is used

    data, offsets = utf8(texts)
    if languages is None or words is None:
        languages, words = np.full(len(texts), -1, np.int32), NO_WORDS
    languages.setflags(write=False)
    n_scanned, repeated = len(_SCANNED), len(_REPETITION) + len(LEXICAL)
    measured = np.zeros((len(texts), len(TEXT)))
    signatures = np.full((len(texts), PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
    for first, last in _batches(offsets):
        found, hashes = scanned(data, offsets[first:last + 1])
        counted, ratios = np.zeros((last - first, repeated)), np.zeros(last - first)
        ngrams.repetition(*hashes, languages[first:last], words.bounds, words.keys, words.flags,
                          words.longest, counted)
        compression.compress(data, offsets[first:last + 1], ratios)
        signature.sign(hashes[0], hashes[-1], permutations(), signatures[first:last])
        measured[first:last, :n_scanned] = found
        measured[first:last, n_scanned:n_scanned + repeated] = counted
        measured[first:last, -1] = ratios
    return measured, signatures


def _batches(offsets: np.ndarray):
    """First and last + 1 of groups of documents that together have about BATCH bytes, or are a single larger one."""
    first, n = 0, len(offsets) - 1
    while first < n:
        last = int(np.searchsorted(offsets, offsets[first] + BATCH, "right")) - 1
        last = min(max(last, first + 1), n)
        yield first, last
        first = last


def byte_lengths(texts: pa.Array) -> np.ndarray:
    """int64 of shape (n,): the bytes of each text."""
    return np.diff(utf8(texts)[1])
