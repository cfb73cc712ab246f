"""The signals, against values worked out by hand from their definitions."""

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from tasks import schema, words
from tasks.annotate import SIGNALS, Annotate, annotate, lexicon, ngrams, scan, segment, signals, signature
from tasks.annotate.measure import TEXT, measure_texts
from tasks.lines import Lines, cut_lines


def documents(texts: list[str | None]) -> pa.Table:
    ids = schema.id_array([schema.doc_id("test", i) for i in range(len(texts))])
    return pa.table({"doc_id": ids, "text": pa.array(texts, pa.string())})


def annotated(texts: list[str | None], settings: Annotate | None = None) -> pa.Table:
    table = documents(texts)
    return signals(table, cut_lines(table, Lines(presets=[])), settings or Annotate())


def measure(text: str) -> dict:
    return annotated([text]).to_pylist()[0]


@pytest.mark.parametrize(("text", "expected"), [
    ("", []),
    ("  \n\n ", []),
    ("The cat.", ["the", "cat"]),
    ("don't DON’T 'quoted' rock'n'roll dogs'", ["don't", "don't", "quoted", "rock'n'roll", "dogs"]),
    ("1,000 3.14 1. 2,x v1.2 10,20,30", ["1,000", "3.14", "1", "2", "x", "v1.2", "10,20,30"]),
    ("foo_bar well-known a/b e@x.org", ["foo", "bar", "well", "known", "a", "b", "e", "x", "org"]),
    ("日本語 です。", ["日本語", "です"]),
    ("Wi-Fi無線abc", ["wi", "fi", "無線", "abc"]),
    ("ที่นี่", ["ที่", "นี่"]),                                          # marks stay with their letter
    ("한국어 문장", ["한국어", "문장"]),                                   # Hangul is written with spaces
    ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
    ("co\u00adoperate zero\u200bwidth", ["cooperate", "zero", "width"]),
    ("😀 ❤\ufe0f 👩\u200d💻 x", ["x"]),                                   # a mark or joiner starts no word
    ("ΌΣΟΣ İstanbul STRASSE", ["όσοσ", "İstanbul".replace("İ", "İ"), "strasse"]),
    ("\x00a\x01b\x85c", ["a", "b", "c"]),
])
def test_words(text, expected):
    assert words.words(text) == expected
    assert measure(text)["n_words"] == len(expected)


def test_the_kernel_and_the_reference_hash_words_alike():
    text = "Don't PANIC 3.14 日本 co\u00adop ’s’ Ünïcode it’s"
    grams = measure(text)
    assert grams["n_words"] == len(words.words(text)) == 8
    assert grams["unique_word_fraction"] == 1.0
    assert measure(text + "\n" + text.upper().replace("’", "'"))["unique_word_fraction"] == 0.5


def test_kernel_constants_are_those_of_words():
    for module in (scan, segment, ngrams, signature):
        for name in ("OTHER", "LETTER", "DIGIT", "MARK", "SINGLE", "FORMAT", "SPACE", "TERMINAL", "CLOSING", "BULLET",
                     "CLASS_SHIFT", "FNV_OFFSET", "FNV_PRIME", "GRAM_BASE"):
            assert int(getattr(module, name, getattr(words, name))) == getattr(words, name), (module, name)
    for name in ("SHORT_LIST", "LONG_LIST", "BAD", "BEGINS_BAD"):
        assert getattr(ngrams, name) == getattr(lexicon, name)
    assert list(TEXT)[:scan.COLUMNS].index("mean_line_digit_fraction") == scan.MEAN_LINE_DIGITS == scan.COLUMNS - 1
    assert len(TEXT) == scan.COLUMNS + ngrams.COLUMNS + 1


PAGE = """Title of the page

The cat, it is said, sat on the mat with that hat... 12 ## times!
- a bullet { } line
* and another one…
The cat sat. The dog sat! Did they have "fun?" Yes.

Accept our Cookie Policy now.
Enable JavaScript to go on."""


def test_values_of_a_page():
    found = measure(PAGE)
    lines = [line for line in PAGE.split("\n") if line]
    assert found["n_chars"] == len(PAGE) and found["n_bytes"] == len(PAGE.encode())
    assert found["n_lines"] == 7 and found["n_paragraphs"] == 3
    n_words = found["n_words"]
    assert n_words == 4 + 14 + 3 + 3 + 11 + 5 + 5
    assert found["mean_words_per_line"] == n_words / 7
    assert found["mean_word_length"] == sum(map(len, words.words(PAGE))) / n_words
    assert found["max_token_length"] == len("JavaScript")
    assert found["hash_word_ratio"] == 2 / n_words
    assert found["ellipsis_word_ratio"] == 2 / n_words
    tokens = PAGE.split()
    assert found["letter_token_fraction"] == sum(any(c.isalpha() for c in t) for t in tokens) / len(tokens)
    assert found["n_stop_words"] == 7                                    # all but `be`
    assert found["newline_word_ratio"] == 8 / n_words
    assert found["bullet_line_fraction"] == 2 / 7
    assert found["ellipsis_line_fraction"] == 1 / 7
    assert found["terminal_line_fraction"] == 5 / 7
    assert found["short_line_fraction"] == sum(len(line) <= 30 for line in lines) / 7
    assert found["n_curly_brackets"] == 1
    assert found["javascript_word_fraction"] == 5 / n_words
    assert found["policy_word_fraction"] == 5 / n_words
    # title 1; "... hat..." ends one, "times!" another; bullets 1 each; 4; 1; 1
    assert found["n_sentences"] == 1 + 2 + 1 + 1 + 4 + 1 + 1
    assert found["c4_sentences"] == 2 + 4                                # the lines with an end, without the last two
    assert found["c4_sentences_any_end"] == 1 + 2 + 1 + 1 + 4
    assert not found["lorem_ipsum"]


@pytest.mark.parametrize(("text", "name", "value"), [
    ("Lorem  ipsum dolor", "lorem_ipsum", True),
    ("lorem\nipsum", "lorem_ipsum", False),
    ("one two ... three .... four .. five", "ellipsis_word_ratio", 2 / 5),
    ("end...\n", "ellipsis_line_fraction", 1.0),
    ("he said \"wait…\"", "ellipsis_line_fraction", 1.0),
    ("wait... now", "ellipsis_line_fraction", 0.0),
    ("He said \"yes.\"\nno end", "terminal_line_fraction", 0.5),
    ("今日は。\n明日も！", "terminal_line_fraction", 1.0),
    ("今日は。明日も！", "n_sentences", 2),
    ("1. 2. 3.", "n_sentences", 3),
    ("...!!! ?", "n_sentences", 0),
    ("x" * 30 + "\n" + "y" * 31, "short_line_fraction", 0.5),
    ("a\r\nb\r\n", "n_lines", 2),
    ("a\n \t\nb", "n_paragraphs", 2),
    ("a\nb\n", "newline_word_ratio", 1.0),
    ("\n\n\n", "newline_word_ratio", 0.0),
    ("the the be BE To", "n_stop_words", 3),
    ("x" * 1001 + " a b c d.", "c4_sentences", 0),
    ("x" * 1000 + " a b c d.", "c4_sentences", 1),
    ("two words.", "c4_sentences", 0),
    ("read our terms of use today.", "policy_word_fraction", 1.0),
    ("terms of\nuse", "policy_word_fraction", 0.0),
    ("we use cookies here.\nok then friends.", "policy_word_fraction", 4 / 7),
    ("ab\ncd\nab\n\nab", "duplicate_line_fraction", 0.5),
    ("ab\ncdef\n  ab  ", "duplicate_line_char_fraction", 2 / 8),
    ("a  b\na b", "duplicate_line_fraction", 0.5),
    ("a\nb\n\na\nb\n\nc", "duplicate_paragraph_fraction", 1 / 3),
    ("a\nb\n\na\nb\n\nc", "duplicate_paragraph_char_fraction", 2 / 5),
    ("a\nb\n\nb\na", "duplicate_paragraph_fraction", 0.0),
    ("aa b aa b c", "top_2gram_char_fraction", 6 / 7),
    ("a a a a", "top_2gram_char_fraction", 1.0),                         # no character twice
    ("a b c d", "top_2gram_char_fraction", 0.0),                         # once is not repetition
    ("a b c d e f a b c d e", "duplicate_5gram_char_fraction", 5 / 11),
    ("a b c d e f a b c d e", "duplicate_6gram_char_fraction", 0.0),
    ("x x x x x x", "duplicate_5gram_char_fraction", 5 / 6),
    ("a a b", "unique_word_fraction", 2 / 3),
    ("a b c d e f a b c d e", "repeated_5gram_char_fraction", 10 / 11),
    ("x x x x x x", "repeated_5gram_char_fraction", 1.0),
    ("a a b", "unigram_entropy", round(math.log(3) - 2 / 3 * math.log(2), 8)),
    ("one", "unigram_entropy", 0.0),
    ("Hi, \"you\" -- {a} 3.5% of...", "n_pieces", 5 + 8),                 # and , " " -- { } % ...
    ("Hi, 35 %", "letter_piece_fraction", 1 / 4),
    ("NASA and the USA, I think; 3D 42", "all_caps_word_fraction", 4 / 8),
    ("日本 ABC", "all_caps_word_fraction", 1 / 2),
    ("{a}", "curly_bracket_fraction", 2 / 3),
    ("lorem ipsum lorem ipsum\nipsum lorem", "n_lorem_ipsum", 2),
    ("ABc\n d 1", "uppercase_char_fraction", 2 / 6),
    ("ABc\n d 1", "digit_char_fraction", 1 / 6),
    ("ÄÖü ½", "uppercase_char_fraction", 2 / 5),
    ("ABc\nAb\n\nABCd", "uppercase_line_fraction", 2 / 3),               # more than half
    ("12:30\n1a\n--\n3,000", "numeric_line_fraction", 2 / 4),
    ("3 likes\n1.2k Shares\nlikes 3\n3 nice likes\nThree likes", "counter_line_fraction", 2 / 5),
    ("one\ntwo words\n42\n--", "one_word_line_fraction", 2 / 4),
    ("AB\nabcd", "mean_line_uppercase_fraction", 1 / 2),
    ("12\nab34", "mean_line_digit_fraction", 3 / 4),
])
def test_values_of_small_texts(text, name, value):
    assert measure(text)[name] == pytest.approx(value, abs=1e-12)


def test_table_is_the_declared_one_and_rows_stay_in_order():
    table = annotated(["one two three", None, ""])
    assert table.schema.equals(SIGNALS) and annotate.makes is SIGNALS
    assert table["row"].to_pylist() == [0, 1, 2]
    assert table["n_words"].to_pylist() == [3, 0, 0]
    assert table["language"].to_pylist()[1:] == ["und", "und"] and table["language_score"].to_pylist()[1:] == [0, 0]
    assert annotated([]).schema.equals(SIGNALS)
    assert set(table["minhash"][1].as_py()) == {2**32 - 1}


@dataclass
class Odd:
    text: str
    n_words: int


@pytest.mark.parametrize("odd", [
    Odd("word " * 400_000, 400_000), Odd("\n" * 1_000_000, 0), Odd("x" * 2_000_000, 1), Odd("…" * 500_000, 0),
    Odd("\u0301" * 500_000, 0), Odd("漢" * 500_000, 500_000), Odd("😀" * 300_000, 0), Odd("a'" * 500_000, 1),
    Odd("{" * 1_000_000, 0)], ids=lambda odd: ascii(odd.text[:5]))
def test_odd_long_texts_take_linear_work(odd):
    found = measure(odd.text)
    assert found["n_words"] == odd.n_words
    assert all(math.isfinite(v) for v in found.values() if isinstance(v, float))


def test_broken_utf8_is_read_within_its_bounds():
    rows = [b"\xf0\x9f", b"ok \xe6\x97", b"\xff\xfe\xc3", b"\xf7\xbf\xbf\xbf x", b"\x80\x80 fine words"]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    broken = pa.Array.from_buffers(pa.large_string(), len(rows), [None, pa.py_buffer(offsets.tobytes()),
                                                                  pa.py_buffer(b"".join(rows))])
    measured, _ = measure_texts(broken)
    assert measured[:, scan.N_WORDS].tolist() == [0, 1, 0, 1, 2]


def test_golden_signals():
    """These are the values since version 2. If they change on purpose, raise the stage's version and set them anew."""
    table = annotated([PAGE, PAGE.upper() * 3, "日本語。" * 5, ""])
    rows = table.select([*TEXT, "minhash"]).to_pylist()
    text = json.dumps([{name: round(v, 12) if isinstance(v, float) else v for name, v in row.items()} for row in rows])
    assert annotate.version == 3
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "bde0622d483f8596"
