"""What is told of a text fast is what Python's own functions say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract import content
from tasks.extract.mojibake import repair
from tasks.extract.plain import identity, is_plain
from tasks.schema import content_id

# From each script that is treated by itself, its neighbours, and what breaks it.
SIGNS = st.text(st.sampled_from(
    "aZ9 .\n\t\x0c\x1c\x1f\x7f\x85\xa0\xadßÀé×ÿĀŉſŸİıΑΓάςθРСвяёЂџ“”–…€‚•¬™→✔ŒžńĄ«»"
    "\u2028\u200b\u0301\u3000、。「カかゞ゙々中가힣ꀀ"
    "Ａ！~ｚ√├┬ՙևḀẞKⒶ𐐀😀कก\ud800\ufeff"), max_size=8)


@given(st.one_of(SIGNS, st.text()))
def test_a_plain_text_is_clean(text):
    if is_plain(text):
        assert content._tidy(repair(text)) == text


@given(st.one_of(SIGNS, st.text()))
def test_the_identity_is_the_schemas(text):
    assert identity(text) == content_id(text)


@pytest.mark.parametrize("sign", ["", "a", " "])
def test_of_every_character(sign):
    for point in range(0x10100):
        text = f"{chr(point)}{sign}"
        if is_plain(text):
            assert content._tidy(repair(text)) == text, hex(point)
    for first in range(0, 0x11000, 16):  # more at a time: a hash for each takes longer
        text = sign.join(map(chr, range(first, first + 16)))
        assert identity(text) == content_id(text), hex(first)


@pytest.mark.parametrize("text", [
    "plain", "Καλημέρα σε όλους", "Привет, мир", "日本語の、テスト。", "한국어 text",
    "naïve “cafés” – 5 €", "“«Oui»…” œuvre", "höß", "→ ✔ 🙂"])
def test_most_languages_are_plain(text):
    assert is_plain(text)


@pytest.mark.parametrize("text", ["caf\xc3\xa9", "РџСЂРёРІРµС‚", " a", "a\n\n\nb", "a \nb", "e\u0301", "a\x00",
                                  "a\u200bb"])
def test_what_is_to_be_mended_is_not(text):
    assert not is_plain(text)
