"""Lists of domains and URLs: what they cover, what they refuse, and the fates they give."""

import gzip

import pytest
from archives import members, response, write
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import UserError
from tasks.extract import Extract, documents, extract, opt_out
from tasks.extract.opt_out import matched

LIST = """# owners who said no
example.com
  *.wild.example   # with all below
.mil
https://www.Pages.Example/People/Jo/
pages.example/search?q=mill&page=2
bücher.example
192.0.2.7
[2001:db8::7]
http://host.example:8080/a%20b
"""
COVERED = [
    ("http://example.com/", "domain"), ("HTTPS://WWW.EXAMPLE.COM", "domain"),
    ("https://a.b.example.com:8443/x", "domain"), ("https://user:word@example.com/x", "domain"),
    ("http://example.com./", "domain"), ("https://notexample.com/", None),
    ("https://example.com.evil.example/", None), ("https://wild.example/", "domain"),
    ("https://x.wild.example", "domain"), ("https://navy.mil/", "domain"), ("https://mil.example/", None),
    ("https://pages.example/", None), ("http://pages.example/People/Jo", "url"),
    ("https://pages.example/People/Jo?x=1", "url"), ("https://pages.example/People/Jo/photos#top", "url"),
    ("https://pages.example/People/Joanna", None), ("https://pages.example/people/jo", None),
    ("https://sub.pages.example/People/Jo", None), ("https://pages.example/search?q=mill&page=2&lang=de", "url"),
    ("https://pages.example/search?q=mill", None), ("https://xn--bcher-kva.example/x", "domain"),
    ("https://shop.BÜCHER.example/", "domain"), ("http://192.0.2.7/x", "domain"), ("http://1.192.0.2.7/", None),
    ("http://[2001:DB8::7]:80/x", "domain"), ("https://host.example/a b/c", "url"),
    ("https://host.example/a%20b", "url"), ("https://host.example/a", None), ("", None), ("dns:example.com", None),
    ("https:///x", None), ("urn:uuid:0", None), ("https://\ud800.example/", None),
]


def entries(tmp_path, text, name="list.txt"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return opt_out.load(((str(path), str(hash(text))),))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_a_list_covers(tmp_path, pack):
    lists = entries(tmp_path, pack(b"\xef\xbb\xbf" + LIST.replace("\n", "\r\n").encode()))
    assert [(url, matched(lists, url)) for url, _ in COVERED] == COVERED


@pytest.mark.parametrize("line", ["two words.example", "com", "exa mple.com", "ex!ample.com", "http://", "a..example",
                                  "300.1.1.1", "[::zz]", "/path/only", "\x80\u2028.example", "*.*.example"])
def test_a_malformed_entry_is_told_by_file_and_line(tmp_path, line):
    with pytest.raises(UserError, match=r"line 3 of the list .*list\.txt is no domain or URL"):
        entries(tmp_path, f"good.example\n# comment\n{line}\n")


def test_lists_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="line 2 of the list .* not UTF-8"):
        entries(tmp_path, b"good.example\nb\xfccher.example\n")
    with pytest.raises(UserError, match="cannot be read"):
        entries(tmp_path, gzip.compress(b"good.example\n" * 9999)[:-20])
    with pytest.raises(UserError, match="cannot be read"):
        opt_out.load(((str(tmp_path / "none.txt"), "0"),))


@given(st.text(max_size=60))
def test_looking_up_reads_anything(url):
    assert matched(opt_out.load(()), url) is None
    assert matched(ONE, f"https://{url}") in (None, "domain")


@given(st.lists(st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True), min_size=1, max_size=4))
def test_a_domain_covers_those_below_and_no_other(labels):
    name = ".".join(labels)
    assert matched(ONE, f"https://{name}.one.example/") == "domain"
    assert matched(ONE, f"https://{name}one.example/") is None


@pytest.fixture(autouse=True, scope="module")
def one(tmp_path_factory):
    global ONE
    ONE = entries(tmp_path_factory.mktemp("one"), "one.example")


def test_fates(tmp_path):
    made = [response(n) for n in range(4)]
    split = write(tmp_path, members(*made))
    (tmp_path / "no.txt").write_text("mill1.example.org\nmill2.example.org/page\n")
    (tmp_path / "bad.txt.gz").write_bytes(gzip.compress(b"mill3.example.org\n"))
    chosen = Extract(opt_out=(str(tmp_path / "no.txt"),), blocklists=(str(tmp_path / "bad.txt.gz"),))
    result = documents(split, chosen)
    assert result.rows_in == 4 and result.table["url"].to_pylist() == ["https://mill0.example.org/page"]
    assert list(zip(result.fates["rule"].to_pylist(), result.fates["detail"].to_pylist(), strict=True)) == [
        ("opt_out", "domain"), ("opt_out", "url"), ("blocklist", "domain")]
    assert len(documents(split, Extract()).table) == 4


def test_the_bytes_of_a_list_are_part_of_the_key(tmp_path):
    from tasks.stage import Unit

    path, chosen = tmp_path / "no.txt", Extract(opt_out=(str(tmp_path / "no.txt"),))
    path.write_text("a.example\n")
    before = extract.keys(chosen, [Unit()])
    path.write_text("a.example\nb.example\n")
    assert extract.keys(chosen, [Unit()]) != before
    path.unlink()
    with pytest.raises(UserError, match="no.txt"):
        extract.keys(chosen, [Unit()])
