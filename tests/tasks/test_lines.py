"""Line cleaning: which lines go, and that nothing else does."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks import words
from tasks.lines import LINES, Lines, cut_lines, kernel, rules
from tasks.schema import doc_id, id_array
from tasks.spans import applied, unlisted

PHRASES = [phrase for group in rules.PHRASES for phrase in group.phrases.splitlines()]
WORDS = [*PHRASES, "3", "The", "mill", "grinds.", "FLOUR", "…", "水車", "1,000", "it's", "likes"]
LINE = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
TEXT = st.lists(LINE | st.text(max_size=12), max_size=8).map("\n".join)


def cut(texts: list, **settings) -> pa.Table:
    documents = pa.table({"doc_id": id_array([doc_id("made", i) for i in range(len(texts))]),
                          "text": pa.array(texts, pa.string())})
    return cut_lines(documents, Lines(**settings))


def types(line: str, **settings) -> list[str]:
    return [span.type for span in unlisted(cut([line], **settings)["spans"])[0]]


def left(text: str, **settings) -> str:
    return applied(pa.array([text]), cut([text], **settings)["spans"])[0].as_py()


ALL = {"presets": tuple(rules.PRESETS)}


@pytest.mark.parametrize("line, rule", [
    ("Please turn JavaScript on.", "line_javascript"),
    ("By going on you agree to our Terms of Use.", "line_policy"),
    ("We use cookies to make this site better.", "line_policy"),
    ("Diese Website verwendet Cookies.", "line_cookies"),
    ("Accept all cookies", "line_cookies"),
    ("Sign in to see your orders", "line_navigation"),
    ("Sign-in", "line_navigation"),
    ("The mill on the river: read more…", "line_navigation"),
    ("You have 3 items in cart", "line_navigation"),
    ("3 likes", "line_counter"),
    ("1,204 Comments", "line_counter"),
    ("1 2 3 1,000.5", "line_numbers"),
    ("ALL ABOUT the MILL", "line_uppercase"),
    ("Mill.", "line_one_word"),
    ("A mill.", "line_words"),
    ("It is " + "x" * 1001 + " there.", "line_word_length"),
    ("The mill grinds flour", "line_end"),
    ("The mill grinds flour...", "line_end"),
    ("The mill grinds flour…", "line_end"),
])
def test_each_rule_cuts_its_line(line, rule):
    assert types(line, **ALL) == [rule]
    assert types(line, presets=(), rules=(rule,)) == [rule]
    assert rule not in types(line, **ALL, without=(rule,))
    table = cut([f"The mill grinds flour.\n{line}\nIt does so every day."], **ALL).to_pylist()[0]
    assert (table["n_lines"], table["n_cut_lines"]) == (3, 1)


@pytest.mark.parametrize("line", [
    "The mill grinds flour.", "The mill grinds flour!\"", "Does the mill grind?", "He likes 3 mills.",
    "We read more about it.", "Her cookies taste of cinnamon and honey.", "3 likes came in today.",
    "The mill signed in 1900 stands.", "He asked about items in carts in the yard of the mill, and then told us all.",
    "Share this with friends who love tea.", "You should come and learn more.", "Follow us on our way to Rome.",
    'He said "Yes, I will do it"', "ꭰꭱꭲ ꭳꭴꭵ ꭶꭷꭸ.", "水車は粉を挽く。", "โรงสี บด แป้ง.", "NASA is flying.",
    "In 1,000 years 3.5 mills were built."])
def test_prose_stays(line):
    assert types(line, **ALL) == []


@pytest.mark.parametrize("line", ["She uses cookies to bribe her children.", "We use cookies as a reward in class."])
def test_a_line_on_cookies_is_no_banner_though_c4_cuts_it(line):
    assert types(line, presets=("refinedweb", "boilerplate")) == [] and types(line, presets=("c4",)) == ["line_policy"]


def test_long_lines_keep_their_navigation_and_cookies():
    story = "Sign in " + "and grind the flour that the mill took from the miller's boy " * 3
    assert types(story, presets=("refinedweb", "boilerplate")) == []
    assert types("We use cookies " + "and we grind flour " * 10, presets=("boilerplate",)) == []


@pytest.mark.parametrize("text, expected", [
    ("Read more\nA.\n\nB.", "A.\n\nB."), ("A.\n\nRead more\n\nB.", "A.\n\nB."), ("A.\nRead more\nB.", "A.\nB."),
    ("A.\n\nRead more", "A."), ("A.\nRead more\n3 likes\n", "A.\n"), ("Read more\n3 likes", ""), ("", ""),
    ("\n Read more \n A.", "\n A."), ("é\nRead more\nü", "é\nü"),
    ("A.\nRead more\n\xadB.\xad", "A.\n\xadB.\xad"), ("\xadRead more\xad\nA.", "A.")])
def test_line_feeds_go_with_their_lines(text, expected):
    assert left(text) == expected


@settings(deadline=None)
@example("0\n\xad0", ("c4",))
@example("0\xad", ("c4",))
@given(TEXT, st.sampled_from([("c4",), ("fineweb",), ("refinedweb",), ("boilerplate",), tuple(rules.PRESETS)]))
def test_what_is_left_is_the_lines_that_stay(text, presets):
    table = cut([text], presets=presets)
    spans = unlisted(table["spans"])[0]
    row = table.to_pylist()[0]
    assert len(spans) == row["n_cut_lines"] <= row["n_lines"] and row["n_cut_words"] <= row["n_words"]

    def lines_of(some: str) -> list[str]:
        return [line.strip() for line in some.split("\n") if line.strip()]

    kept = applied(pa.array([text]), table["spans"])[0].as_py()
    stay = iter(lines_of(text))
    assert all(any(line == other for other in stay) for line in lines_of(kept))     # a subsequence
    assert cut([kept], presets=presets)["n_cut_lines"][0].as_py() == 0              # cutting twice is cutting once
    for span in spans:                      # each line is judged alone
        inside = lines_of(text[span.offset:span.offset + span.length])
        assert len(inside) == 1 and types(inside[0], presets=presets) == [span.type]


def test_tables_of_many_documents():
    table = cut(["3 likes\nA mill grinds.", None, "", "Read more\n" * 3000 + "End of it."])
    assert table.schema.equals(LINES)
    assert table["n_cut_lines"].to_pylist() == [1, 0, 0, 3000]
    assert table["n_cut_words"].to_pylist() == [2, 0, 0, 6000] and table["n_words"].to_pylist() == [5, 0, 0, 6003]
    assert cut([]).schema.equals(LINES)
    assert cut(["3 likes"], presets=()).to_pylist()[0]["spans"] == []


def test_unknown_rules_are_refused():
    with pytest.raises(ValidationError, match="line_end"):
        Lines(rules=("line_ends",))
    with pytest.raises(ValidationError, match="refinedweb"):
        Lines(presets=("refined",))


def test_the_kernel_has_the_constants_of_words_and_rules():
    classes = "OTHER LETTER DIGIT MARK SINGLE FORMAT SPACE TERMINAL CLOSING BULLET"
    for name in [*classes.split(), "CLASS_SHIFT", "FNV_OFFSET", "FNV_PRIME", "GRAM_BASE"]:
        assert int(getattr(kernel, name)) == int(getattr(words, name))
    places = "ANYWHERE AT_START AT_END COUNTED"
    assert all(getattr(kernel, name) == getattr(rules, name) for name in places.split())
    in_kernel = {name: getattr(kernel, name.removeprefix("line_").upper()) for name in rules.RULES}
    assert list(in_kernel.values()) == list(range(kernel.N_RULES))


def test_the_letters_of_the_phrases_are_as_they_are_compared():
    for phrase in PHRASES:
        assert unicodedata.is_normalized("NFC", phrase)
        assert words.words(phrase) == phrase.casefold().replace("-", " ").split()
