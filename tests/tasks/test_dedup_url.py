"""Which URLs are the same."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.dedup.url import normalized


def one(url):
    return normalized(pa.array([url], pa.string()))[0].as_py()


@pytest.mark.parametrize(("url", "same"), [
    ("HTTP://WWW.Example.COM:80/A?Q=1#top", "http://www.example.com/A?Q=1"),
    ("https://example.com:443", "https://example.com/"),
    ("https://example.com:/x", "https://example.com/x"),
    ("http://example.com?a=1", "http://example.com/?a=1"),
    (" http://example.com/\n", "http://example.com/"),
    ("http://User:Pass@Example.com/", "http://User:Pass@example.com/"),
    ("http://[2001:DB8::1]:80/x", "http://[2001:db8::1]/x"),
    ("file:///A/b#c", "file:///A/b"),
    ("no url # at all", "no url"),
    ("HTTP://example.com::80/ #c", "HTTP://example.com::80/"),
    ("http://example.com/a\nb#c", "http://example.com/a\nb"),
    (None, None),
])
def test_equal(url, same):
    assert one(url) == same


@pytest.mark.parametrize(("a", "b"), [
    ("http://example.com/a", "http://example.com/a/"), ("http://example.com/a", "https://example.com/a"),
    ("http://example.com:443/", "http://example.com/"), ("http://example.com/a", "http://example.com/A"),
    ("http://example.com/?a=1&b=2", "http://example.com/?b=2&a=1"), ("http://example.com/a?", "http://example.com/a"),
])
def test_different(a, b):
    assert one(a) != one(b)


@settings(deadline=None)
@given(st.text(max_size=30).map(lambda s: "HTTP://Example.com" + s) | st.text(max_size=30))
def test_normal_form_is_stable(url):
    url = url.encode("utf-8", "replace").decode()
    assert one(one(url)) == one(url)
