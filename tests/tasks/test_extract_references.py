"""Character references decoded."""

import pytest

from tasks.extract.blocks import tokenize
from tasks.extract.main_content import read
from tasks.extract.references import unescape

LONG = "9" * 5000
ZEROS = "0" * 5000


@pytest.mark.parametrize(("text", "found"), [
    ("a &lt; b &#65;", "a < b A"), (f"&#{LONG};a", "�a"), (f"&#{LONG}", "�"), (f"&#{ZEROS}65;&#066;", "AB"),
    (f"&#{ZEROS};", "�"), (f"&#{LONG}; &#; &#x41; &amp; &# &#0000000065;", "� &#; A & &# A"),
    (f"&#{LONG};&#12345678;&#1114112;&#169", "���©"),
])
def test_unescape(text, found):
    assert unescape(text) == found


def test_a_title_with_a_long_reference():
    assert read(tokenize(f"<title>Mill &#{LONG};</title><p>a".encode()), comments=False, markdown=False)[0] == "Mill �"
