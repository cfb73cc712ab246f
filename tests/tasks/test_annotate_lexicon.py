"""Stop words and bad words by language."""

import gzip
import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest

from tasks.annotate.lexicon import JUSTEXT, LEAST, LONG, SHORT, UNSPACED, WordLists, lexicon, table
from tasks.annotate.measure import LEXICAL, TEXT, measure_texts, text_signals
from tasks.errors import UserError


@pytest.fixture
def lists(tmp_path):
    def write(rows, packed=False) -> WordLists:
        data = "\n".join(json.dumps(row) for row in rows).encode()
        path = tmp_path / "words.jsonl"
        path.write_bytes(gzip.compress(data) if packed else data)
        return WordLists(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return write


def measured(text: str, language: str, **settings) -> dict:
    columns, _ = text_signals(pa.array([text], pa.large_string()), pa.array([language]), **settings)
    return {name: columns[name][0].as_py() for name in LEXICAL}


def test_stop_words_are_counted_in_the_language_of_the_document():
    text = "The cat AND the dog; xyzzy was in the house of quux."
    found = measured(text, "en")
    assert found["n_language_stop_words"] == len({"the", "and", "was", "in", "of"})
    assert found["stop_word_fraction"] == pytest.approx(8 / 12)          # `house` is in the long list
    assert measured(text, "de")["n_language_stop_words"] == len({"in"})
    assert measured("Der Hund und die Katze sind in dem Haus", "de")["n_language_stop_words"] >= 3
    assert measured("它是我的，在这里有很多人。", "zh")["n_language_stop_words"] >= 3
    assert measured("ฉันเป็นคนไทยและไม่มีบ้านที่นี่", "th")["n_language_stop_words"] >= 3


def test_no_list_is_null_and_not_none():
    assert measured("tlhIngan maH taHjaj", "tlh") == dict.fromkeys(LEXICAL)
    assert measured("the cat", "en")["n_bad_words"] is None
    assert measured("的", "zh")["stop_word_fraction"] is None            # a short list only
    assert measured("", "en") == {"n_language_stop_words": 0, "stop_word_fraction": 0.0, "n_bad_words": None}


def test_bad_words_and_phrases(lists):
    bad = lists([{"lang": "en", "words": ["darn", "Two Girls", "a b c d", "🖕"]}, {"lang": "fil", "words": ["darn it"]},
                 {"lang": "zh", "words": ["坏词"]}], packed=True)
    for text, language, n in [("Darn! DARN darning", "en", 2), ("two  girls, two boys; two\ngirls", "en", 2),
                              ("a b c d a b c", "en", 1), ("darn", "tl", 0), ("oh darn it", "tl", 1),
                              ("这是坏词。", "zh", 1), ("nice", "en", 0), ("two", "en", 0)]:
        assert measured(text, language, bad_words=bad)["n_bad_words"] == n, text
    assert measured("darn", "de", bad_words=bad)["n_bad_words"] is None
    assert lexicon(None, bad).longest == 4


def test_short_lists_of_a_file_take_the_place_of_all(lists):
    stop = lists([{"lang": "en", "words": ["cat", "dog"]}, {"lang": "nob", "words": ["og"]}])
    assert measured("the cat and the dog", "en", stop_words=stop)["n_language_stop_words"] == 2
    assert measured("hund og katt", "no", stop_words=stop)["n_language_stop_words"] == 1
    assert measured("der Hund", "de", stop_words=stop)["n_language_stop_words"] is None
    assert measured("der Hund", "de", stop_words=stop)["stop_word_fraction"] == 0.5       # the long list stays


def test_a_wrong_file_is_one_sentence(lists, tmp_path):
    good = lists([{"lang": "en", "words": ["x"]}])
    cases = [(WordLists(path=str(tmp_path / "none"), sha256="0" * 64), "cannot read annotate.bad_words.path"),
             (WordLists(path=good.path, sha256="0" * 64), "has sha256")]
    for wrong, message in cases:
        with pytest.raises(UserError, match=message):
            lexicon(None, wrong)
    for rows in (["x"], [{"lang": "en"}], [{"lang": 5, "words": []}], [{"lang": "en", "words": 5}]):
        with pytest.raises(UserError, match="is no list of words by language"):
            lexicon(None, lists(rows))


def test_every_language_has_its_words():
    every = lexicon()
    assert every.stop_words == set(JUSTEXT) | set(UNSPACED)
    assert every.long_lists == set(JUSTEXT) - {"ceb", "ht", "io", "war"}
    assert list(every.languages) == sorted(every.languages)
    for code, number in every.languages.items():
        held = every.flags[every.bounds[number]:every.bounds[number + 1]]
        n_short, n_long = int((held & 1 > 0).sum()), int((held & 2 > 0).sum())
        assert SHORT - 4 <= n_short <= 2 * SHORT, code
        assert n_short if code not in every.long_lists else LEAST * 0.8 <= n_long <= LONG, code


def test_hashes_of_phrases_are_not_taken_for_words():
    known = table({}, {}, {"en": ["new york"]})
    texts = pa.array(["new york new jersey york new"], pa.large_string())
    found, _ = measure_texts(texts, np.zeros(1, np.int32), known)
    assert found[0, list(TEXT).index("n_bad_words")] == 1
