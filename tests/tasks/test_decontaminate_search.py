"""Words, matches and cuts, by example and by what must hold for any text."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.decontaminate.cuts import TYPE, cut_out, pieces, ranges
from tasks.decontaminate.index import build
from tasks.decontaminate.items import item
from tasks.decontaminate.search import Match, matches
from tasks.decontaminate.words import all_words, folding, lengths
from tasks.spans import Span, apply, utf8

FOLDING = folding()
LETTERS = "abcdefghijklmnop"


def words_of(text):
    return all_words(*utf8(pa.array([text], pa.string())), *FOLDING)[0].tolist()


@pytest.mark.parametrize("text, words", [
    ("", 0), ("...", 0), ("one", 1), ("don't  well-known", 3), ("don’t", 1), ("ÉCOLE école", 2), ("中文字 かな", 5),
    ("한국어 문장", 2), ("भाषा में", 2), ("x86_64 3.14", 4), ("🙂 a🙂b", 2), ("مرحبا بالعالم", 2), ("𠀀𠀁", 2),
    ("ภาษาไทย", 7), ("ខ្មែរ", 3), ("a中b", 3), ("1,000", 2), ("'tis", 1), ("a\u0000b", 2)])
def test_words(text, words):
    assert len(words_of(text)) == words


@pytest.mark.parametrize("one, other", [
    ("Don’t stop, NOW!", "dont stop now"), ("École cafe\u0301 ﬁn", "ecole café fin"), ("ＡＢ cd ef", "ab CD eF"),
    ("中文字", "中 文 字"), ("a-b_c", "a b c"), ("Straße", "STRASSE"), ("ΟΔΟΣ", "οδος"), ("İstanbul", "istanbul"),
    ("x²", "x2"), ("한국", unicodedata.normalize("NFD", "한국")), ("ガギ", "ｶﾞｷﾞ"),
    ("ガ", unicodedata.normalize("NFD", "ガ")), ("مُحَمَّد", "محمد"), ("שָׁלוֹם", "שלום"), ("so\u00adft", "soft"),
    ("น้ำ", "นา")])
def test_folding_makes_equal(one, other):
    assert words_of(one) == words_of(other) and words_of(one)


def test_words_that_differ_differ():
    texts = ["ab", "ba", "a", "aa", "aaa", "b", "1", "11", "ё", "ж", "中", "国", "é", "o", "abcdefghijk", "abcdefghikj"]
    hashes = [words_of(text)[0] for text in texts]
    assert len(set(hashes)) == len(texts)
    assert [value & 1 for value in hashes] == [text in "中国" for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_words_do_not_depend_on_normal_form_or_case(text):
    """Letters of which case or form changes more than themselves are few; they are left out."""
    plain = "".join(c for c in text if unicodedata.combining(c) == 0)
    assert words_of(plain) == words_of(unicodedata.normalize("NFC", plain))
    simple = "".join(c for c in plain if c.isascii() or len(c.upper().casefold()) == 1)
    assert words_of(simple.replace("\u0345", "")) == words_of(simple.casefold().replace("\u0345", ""))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read(data):
    column = np.frombuffer(data or b" ", np.uint8)
    words, starts = all_words(column, np.array([0, len(column)], np.int64), *FOLDING)
    assert starts[-1] == len(words) and lengths(words, starts)[0] <= 2 * len(words)


def index_of(texts, ngram=13, min_words=8, exact_words=6, max_items=10):
    items = [item("b", n, {"text": text}) for n, text in enumerate(texts)]
    return build(items, ngram, min_words, exact_words, max_items)


def search(texts, index, **options):
    return matches(pa.array(texts, pa.large_string()), index, **options)


def test_a_match_says_where_and_how_much():
    passage = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    text = "Ünd so: ONE two, three four five six SEVEN eight nine ten eleven twelve thirteen. Ende"
    ((match,),) = search([text], index_of([passage])).values()
    assert text.encode()[match.begin:match.end].decode() == text[text.index("ONE"):text.index(". Ende")]
    assert (match.rule, match.ngrams, match.matched, match.words) == ("ngram_overlap", 1, 13, 14)


def test_a_passage_that_a_text_repeats_is_found_each_time_in_linear_time():
    passage = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    found, = search([f"{passage} and so on. " * 30_000], index_of([passage])).values()
    assert len(found) == 30_000
    assert all(before.end <= after.begin for before, after in zip(found, found[1:], strict=False))


def test_gaps_of_words_replaced_left_out_and_put_in():
    words = [f"w{n}" for n in range(20)]
    index = index_of([" ".join(words)])
    for changed, equal in (([*words[:6], "x", *words[7:]], 19), ([*words[:6], *words[7:]], 19),
                           ([*words[:6], "x", *words[6:]], 20), ([*words[:8], "x", "y", "z", *words[11:]], 17),
                           ([*words[:6], "x", words[7], "x", *words[9:]], 18), (["x", *words[1:]], 19)):
        ((match,),) = search([" ".join(["before", *changed, "after"])], index).values()
        assert match.matched == equal, changed


def test_scripts_without_spaces_two_letters_a_word():
    passage = "".join(chr(0x4E00 + 7 * n) for n in range(26))
    index = index_of([passage])
    assert search([f"前{passage}後"], index)[0][0].rule == "ngram_overlap"
    assert search([f"前{passage[:25]}後"], index)[0][0].rule == "item_similarity"
    assert not search([passage[:20]], index), "three quarters of it"
    assert len(index_of([passage[:15]], exact_words=8).starts) == 1, "15 letters have the length of 7.5 words"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LETTERS), max_size=40), min_size=1, max_size=4),
       st.lists(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=40), min_size=1, max_size=4))
def test_ngrams_are_found_where_sets_of_tuples_meet(documents, items):
    """Against the plain definition: words of one letter, n-grams of 7, so that they meet often."""
    length = 7

    def tuples(words):
        return {tuple(words[k:k + length]) for k in range(len(words) - length + 1)}

    index = index_of([" ".join(words) for words in items], ngram=length, min_words=64, exact_words=64)
    known = index_of([" ".join(words) for words in items], ngram=length, min_words=8, exact_words=7)
    found = search([" ".join(words) for words in documents], known, similarity=1.0)
    for place, words in enumerate(documents):
        assert (place in found) == any(tuples(words) & tuples(passage) for passage in items)
    assert not len(index.words)


@st.composite
def planting(draw):
    vocabulary = [a + b for a in LETTERS for b in LETTERS]
    passage = draw(st.lists(st.sampled_from(vocabulary), min_size=8, max_size=60))
    around = draw(st.lists(st.sampled_from([f"{word}z" for word in vocabulary]), max_size=60))
    return passage, around, draw(st.integers(0, len(around)))


@settings(max_examples=80, deadline=None)
@given(planting(), st.randoms(use_true_random=False))
def test_what_is_planted_is_found_whatever_its_case_and_punctuation(planted, rng):
    passage, around, at = planted
    index = index_of([" ".join(passage)])
    changed = [rng.choice([str.upper, str.title, str.lower])(word) + rng.choice(["", ",", ".", "!", " -"])
               for word in passage]
    text = " ".join([*around[:at], *changed, *around[at:]])
    plain = " ".join([*around[:at], *passage, *around[at:]])
    (found,), (same,) = search([text], index)[0], search([plain], index)[0]
    assert found.matched == len(passage) and found[2:] == same[2:]
    assert not search([" ".join(around)], index)


@settings(max_examples=80, deadline=None)
@given(planting(), st.randoms(use_true_random=False))
def test_one_word_in_ten_replaced_is_found(planted, rng):
    passage, around, at = planted
    assume(len(set(passage)) == len(passage))
    changed = list(passage)
    for place in range(rng.randrange(10), len(passage), 10):     # evenly: every run between has nine words
        changed[place] = f"{changed[place]}y"
    assert search([" ".join([*around[:at], *changed, *around[at:]])], index_of([" ".join(passage)]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.sampled_from(LETTERS[:6]), max_size=40), min_size=1, max_size=3),
       st.lists(st.sampled_from(LETTERS[:6]), min_size=8, max_size=30))
def test_no_match_without_four_words_in_a_row(documents, passage):
    runs = {tuple(passage[k:k + 4]) for k in range(len(passage) - 3)}
    found = search([" ".join(words) for words in documents], index_of([" ".join(passage)]))
    for place in found:
        words = documents[place]
        assert runs & {tuple(words[k:k + 4]) for k in range(len(words) - 3)}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([*"abcde", "a.", "b\n", "<x>", "中"]), max_size=120),
       st.lists(st.sampled_from("abcde"), min_size=8, max_size=16), st.integers(0, 30), st.integers(0, 30))
def test_what_was_cut_is_found_no_more(words, passage, margin, min_piece):
    index = index_of([" ".join(passage)], ngram=8)
    text = " ".join([*words[:60], *passage, *words[60:]])
    found = search([text], index)

    def again(texts):
        return search(texts, index)

    (spans,) = cut_out([text], [[]], [found[0]], margin, min_piece, again)
    left = apply(text, spans)
    assert not search([left], index)
    assert cut_out([text], [spans], [[]], margin, min_piece, again) == [spans], "cutting twice is cutting once"
    assert all(span.replacement == "" for span in spans) and pieces(text, spans) <= len(spans) + 1


def test_cuts_end_between_words_and_short_pieces_go():
    text = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"
    begin, end = text.index("delta"), text.index(" kappa")
    match = Match(begin, end, 0, "item_similarity", 0, 6, 6)
    assert ranges(text, [match], 0, 0) == [(begin, end + 1)]
    assert ranges(text, [match], 3, 0) == [(text.index("gamma"), text.index("lambda"))], "no margin divides a word"
    assert ranges(text, [match], 0, begin) == [(begin, len(text))]
    assert ranges(text, [match], 0, begin + 1) == [(0, len(text))]
    late = match._replace(begin=text.index("mu"), end=len(text))
    assert ranges(text, [match, late], 0, 0) == [(begin, end + 1), (late.begin, late.end)]
    assert ranges(text, [match, late], 0, 14) == [(begin, len(text))]


def test_pieces_are_counted_in_what_other_spans_leave():
    text = "cookies\nan item of a benchmark"
    cut, hit = Span("line_cookies", 0, 8, ""), Span(TYPE, 8, 22, "")
    assert pieces(text, [cut, hit]) == 0 and pieces(text, [hit]) == 1
    assert pieces("ab@c.org then an item", [Span("EMAIL", 0, 8), Span(TYPE, 14, 7, "")]) == 1
