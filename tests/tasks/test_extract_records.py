"""Reading archives: damage costs what is damaged, and splits neither lose nor double a record."""

import dataclasses
import gzip
import zlib

import lz4.frame
import pytest
from archives import http, members, page, response, warc_record, write
from backports import zstd
from fastwarc.stream_io import Lz4Writer, ZstdWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.extract import records as reading
from tasks.extract import window
from tasks.extract.records import Record, Unreadable, read_records

MAX = 1 << 20
INFO = warc_record("warcinfo", "", b"software: test\r\n")


def read(split, start=0, end=1 << 60, max_bytes=MAX):
    return list(read_records(split.path, start, end, max_bytes))


def urls(found):
    return [r.headers.get("warc-target-uri") for r in found if isinstance(r, Record) and r.type == "response"]


def spans(found):
    return [(r.offset, r.length, r.reason) for r in found if isinstance(r, Unreadable)]


def test_members_have_their_place_and_length(tmp_path):
    made = [INFO, response(0), response(1)]
    found = read(write(tmp_path, members(*made)))
    sizes = [len(members(m)) for m in made]
    assert [(r.offset, r.length) for r in found] == [(0, sizes[0]), (sizes[0], sizes[1]), (sum(sizes[:2]), sizes[2])]
    assert [r.type for r in found] == ["warcinfo", "response", "response"]
    assert found[1].block == http(page(0))


def test_a_corrupt_member_costs_that_member(tmp_path):
    parts = [members(response(n)) for n in range(5)]
    hurt = bytearray(parts[2])
    hurt[len(hurt) // 2] ^= 0xFF
    parts[2] = bytes(hurt)
    found = read(write(tmp_path, b"".join(parts)))
    assert urls(found) == [f"https://mill{n}.example.org/page" for n in (0, 1, 3, 4)]
    assert spans(found) == [(len(parts[0] + parts[1]), len(parts[2]), "corrupt")]


def test_a_wrong_checksum_is_damage(tmp_path):
    part = bytearray(members(response(1)))
    part[-6] ^= 1
    found = read(write(tmp_path, members(response(0)) + part + members(response(2))))
    assert len(urls(found)) == 2 and [s[2] for s in spans(found)] == ["corrupt"]


@pytest.mark.parametrize("garbage", [b"garbage", b"\x1f\x8b\x08 not really", b"\x1f\x8b", b"<html>" * 99])
def test_garbage_between_members(tmp_path, garbage):
    first = members(response(0))
    found = read(write(tmp_path, first + garbage + members(response(1))))
    assert len(urls(found)) == 2
    assert [s[:2] for s in spans(found)] == [(len(first), len(garbage))]


def test_padding_is_no_record(tmp_path):
    found = read(write(tmp_path, members(response(0)) + b"\0" * 100 + members(response(1)) + b"\r\n"))
    assert len(urls(found)) == 2 and not spans(found)


def test_truncated_last_member(tmp_path):
    first, last = members(response(0)), members(response(1))
    for cut in (1, 5, len(last) // 2, len(last) - 1):
        found = read(write(tmp_path, first + last[:cut]))
        assert len(urls(found)) == 1
        assert [s[:2] for s in spans(found)] == [(len(first), cut)]


def test_a_member_that_is_no_record(tmp_path):
    found = read(write(tmp_path, members(b"nothing of ours", response(1), b"")))
    assert len(urls(found)) == 1 and [s[2] for s in spans(found)] == ["not_a_record"]


def test_a_whole_file_in_one_member(tmp_path):
    data = INFO + response(0) + response(1)
    found = read(write(tmp_path, members(data)))
    assert len(urls(found)) == 2 and not spans(found)
    assert len({(r.offset, r.inner) for r in found}) == 3


def test_what_lies_before_the_damage_in_one_member_is_read(tmp_path):
    packed = gzip.compress(response(0) + response(1) + response(2, page(2, "é" * 5000)), 1)
    found = read(write(tmp_path, packed[:-20]))
    assert urls(found) == ["https://mill0.example.org/page", "https://mill1.example.org/page"]
    assert [s[2] for s in spans(found)] == ["truncated"]


@pytest.mark.parametrize("length", [None, 10, 100_000, "negative", "absent"])
def test_in_a_member_its_end_counts_and_not_a_wrong_length(tmp_path, length):
    record = warc_record("response", "https://x.example/", http(page()),
                         length=length if isinstance(length, int) else -5 if length else None)
    if length == "absent":
        record = record.replace(b"Content-Length: -5\r\n", b"")
    found = read(write(tmp_path, members(record, response(1))))
    assert len(urls(found)) == 2 and not spans(found)
    assert found[0].block.strip() == http(page())


@pytest.mark.parametrize("length", [10, 3000, 100_000, -1])
def test_in_a_plain_file_a_wrong_length_costs_that_record(tmp_path, length):
    wrong = warc_record("response", "https://wrong.example/", http(page()), length=length)
    found = read(write(tmp_path, response(0) + wrong + response(1) + response(2), "x.warc"))
    assert urls(found) == [f"https://mill{n}.example.org/page" for n in range(3)]
    assert [s[:2] for s in spans(found)] == [(len(response(0)), len(wrong))]


@pytest.mark.parametrize("length", [10, 3000, 100_000, -1])
@pytest.mark.parametrize("last", [False, True])
def test_in_a_plain_file_the_http_header_may_tell_the_right_length(tmp_path, length, last):
    block = http(page(5), Content_Length=len(page(5)))
    wrong = warc_record("response", "https://wrong.example/", block, length=length)
    short = warc_record("response", "https://cut.example/", block[:-9], length=length)
    parts = [response(0), short, wrong] if last else [response(0), wrong, response(1), short, response(2)]
    split = write(tmp_path, b"".join(parts), "x.warc")
    found = read(split)
    assert len(urls(found)) == len(parts) - 1 and [s[1] for s in spans(found)] == [len(short)]
    assert next(r for r in found if isinstance(r, Record) and "wrong" in r.headers["warc-target-uri"]).block == block
    pieces = [r for start in range(0, split.end, 301) for r in read(split, start, start + 301)]
    assert [dataclasses.astuple(r) for r in pieces] == [dataclasses.astuple(r) for r in found]


@pytest.mark.parametrize("name", ["x.warc", "x.warc.gz"])
def test_a_length_of_five_thousand_digits_is_none(tmp_path, name):
    record = warc_record("response", "https://a.example/", b"block").replace(b"h: 5\r", b"h: " + b"5" * 5000 + b"\r")
    data = gzip.compress(record) if name.endswith(".gz") else record
    (tmp_path / name).write_bytes(data)
    found = list(read_records(str(tmp_path / name), 0, len(data), 1 << 20))
    assert len(found) == 1


def test_a_folded_line_behind_one_that_is_no_header(tmp_path):
    record = response(1).replace(b"WARC-Date", b"no header\r\n and its folds\r\nWARC-Date\r\n : x\r\nWARC-Date", 1)
    assert urls(read(write(tmp_path, members(record)))) == ["https://mill1.example.org/page"]


def test_line_feeds_only(tmp_path):
    record = warc_record("response", "https://x.example/", http(page()), line="\n", end=b"\n\n")
    assert urls(read(write(tmp_path, record + record, "x.warc"))) == ["https://x.example/"] * 2
    assert urls(read(write(tmp_path, members(record, record)))) == ["https://x.example/"] * 2


def test_a_large_record_is_passed_over(tmp_path):
    big = response(1, page(1, "x" * 3_000_000))
    made = [response(0), big, response(2)]
    for data, name in ((members(*made), "x.warc.gz"), (b"".join(made), "x.warc")):
        found = read(write(tmp_path, data, name))
        assert len(urls(found)) == 3 and not spans(found)
        assert found[1].block == b"" and found[1].size > MAX


def test_a_bomb_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(window, "BOMB_BYTES", 1 << 22)
    bomb = warc_record("response", "https://bomb.example/", http(bytes(1 << 24)))
    found = read(write(tmp_path, members(response(0), bomb, response(1))))
    assert len(urls(found)) == 2 and [s[2] for s in spans(found)] == ["expansion"]


PACKS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}


@pytest.mark.parametrize("pack", PACKS)
def test_other_compressions_whole(tmp_path, pack):
    split = write(tmp_path, PACKS[pack](INFO + response(0) + response(1)), f"x.warc.{pack}")
    found = read(split)
    assert len(urls(found)) == 2 and not spans(found) and len({(r.offset, r.inner) for r in found}) == 3
    assert urls(read(split, 10)) == []


@pytest.mark.parametrize("writer", [ZstdWriter, Lz4Writer])
def test_what_fastwarc_writes(tmp_path, writer):
    with open(tmp_path / "packed", "wb") as file, writer(file) as out:
        out.write(INFO + response(0) + response(1))
    found = read(write(tmp_path, (tmp_path / "packed").read_bytes(), "x.warc.any"))
    assert len(urls(found)) == 2 and not spans(found)


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("damage", ["flip", "cut", "garbage", "magic"])
def test_a_corrupt_frame_costs_that_frame(tmp_path, pack, damage):
    parts = [PACKS[pack](response(n)) for n in range(5)]
    hurt = parts[2]
    parts[2] = {"flip": hurt[:60] + bytes([hurt[60] ^ 0xFF]) + hurt[61:], "cut": hurt[:-30],
                "garbage": hurt[:50] + b"garbage" + hurt[50:], "magic": b"abcd" + hurt[4:]}[damage]
    split = write(tmp_path, b"".join(parts), f"x.warc.{pack}")
    found = read(split)
    assert urls(found) == [f"https://mill{n}.example.org/page" for n in (0, 1, 3, 4)]
    assert [s[:2] for s in spans(found)] == [(len(parts[0] + parts[1]), len(parts[2]))]
    pieces = [r for start in range(0, split.end, 97) for r in read(split, start, start + 97)]
    assert [dataclasses.astuple(r) for r in pieces] == [dataclasses.astuple(r) for r in found]


@pytest.mark.parametrize("packed", [False, True])
def test_a_zstd_file_with_its_dictionary(tmp_path, packed):
    dictionary = zstd.train_dict([response(n) for n in range(300)], 4000)
    content = zstd.compress(dictionary.dict_content) if packed else dictionary.dict_content
    data = b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content
    data += b"".join(zstd.compress(response(n), zstd_dict=dictionary) for n in range(3))
    split = write(tmp_path, data, "x.warc.zst")
    found = read(split)
    assert len(urls(found)) == 3 and not spans(found)
    assert [len(read(split, at, at + 500)) for at in range(0, len(data), 500)].count(0) < len(data) / 500
    hurt = write(tmp_path, data[:8] + b"\xff" * 8 + data[16:], "y.warc.zst")  # every frame is told, none invented
    assert not urls(read(hurt)) or packed is False


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("size", [50, 333, 5000])
def test_members_cut_without_regard_to_records(tmp_path, pack, size):
    """As bgzip and block-wise compressors cut them."""
    data = INFO + b"".join(response(n) for n in range(9))
    split = write(tmp_path, b"".join(PACKS[pack](data[i:i + size]) for i in range(0, len(data), size)), f"x.{pack}")
    found = read(split)
    assert urls(found) == [f"https://mill{n}.example.org/page" for n in range(9)] and not spans(found)
    assert [r.block for r in found[1:]] == [http(page(n)) for n in range(9)]
    pieces = [r for start in range(0, split.end, 501) for r in read(split, start, start + 501)]
    assert [dataclasses.astuple(r) for r in pieces] == [dataclasses.astuple(r) for r in found]


def test_a_header_in_a_member_of_its_own(tmp_path):
    record = response(1)
    at = record.index(b"<html>")
    found = read(write(tmp_path, members(response(0), record[:at], record[at:], response(2))))
    assert len(urls(found)) == 3 and not spans(found) and found[1].block == http(page(1))


def test_types_that_are_passed_over_are_whole_records(tmp_path):
    record = warc_record("request", "https://mill1.example.org/page", b"GET /page HTTP/1.1\r\n\r\n" + b"a" * 60)
    at = record.index(b"GET")
    for parts in ([record], [record[:at], record[at:]], [record[:-20], record[-20:]]):
        split = write(tmp_path, members(INFO, response(0), *parts, response(2)))
        found = list(read_records(split.path, 0, split.end, MAX, frozenset(["request", "warcinfo"])))
        assert len(urls(found)) == 2 and not spans(found)


def test_a_member_that_does_not_complete_a_record_is_its_own(tmp_path):
    wrong = warc_record("response", "https://long.example/", http(page(5)), length=9999)
    for other in (b"no record", b"x" * 4000):
        found = read(write(tmp_path, members(wrong, other, response(2))))
        assert len(urls(found)) == 2 and found[0].block.strip() == http(page(5))
        assert [s[2] for s in spans(found)] == ["not_a_record"]
    hurt = members(b"x" * 4000)[:-9] + b"y" * 9
    found = read(write(tmp_path, members(wrong) + hurt + members(response(2))))
    assert len(urls(found)) == 2 and [s[1:] for s in spans(found)] == [(len(hurt), "corrupt")]


def test_a_skippable_frame_that_leads_nowhere_hides_nothing(tmp_path):
    frame = b"\x50\x2a\x4d\x18\xff\xff\xff\x00"
    first, second, third = (PACKS["zst"](response(n)) for n in range(3))
    data = first + frame + second + b"\x51\x2a\x4d\x18\x03\0\0\0abc" + third
    found = read(write(tmp_path, data, "x.zst"))
    assert len(urls(found)) == 3 and [s[1] for s in spans(found)] == [8]


def test_arc(tmp_path):
    body = http(page())
    head = b"filedesc://x.arc 0.0.0.0 20140216050221 text/plain 20\n1 0 Test\nURL IP-addr\n\n"
    arc = [head, *(b"http://x.example/a b?%d 1.2.3.4 20140216050221 text/html %d\n" % (n, len(body)) + body + b"\n"
                   for n in range(3))]
    for data, name in ((b"".join(arc), "x.arc"), (members(*arc), "x.arc.gz")):
        found = read(write(tmp_path, data, name))
        assert urls(found) == [f"http://x.example/a b?{n}" for n in range(3)]
        assert found[1].headers["warc-date"] == "2014-02-16T05:02:21Z" and found[1].block == body


def stored(data: bytes) -> bytes:
    """A gzip member that holds `data` byte for byte, as zlib does with what is compressed already."""
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def test_a_cut_member_in_front_of_a_split_does_not_hide_what_follows(tmp_path):
    """The inflater may swallow the members behind a cut one before it sees the damage."""
    cut, following = members(response(2))[:-30], members(INFO, response(3))
    split = write(tmp_path, members(INFO) + cut + following)
    start = len(members(INFO) + cut) - 5
    assert urls(read(split, start, split.end)) == ["https://mill3.example.org/page"]


record_bytes = st.one_of(
    st.integers(0, 9).map(lambda n: members(response(n))),
    st.integers(0, 9).map(lambda n: members(INFO, warc_record("revisit", f"https://r{n}.example/", b""))),
    st.binary(min_size=1, max_size=60),                                              # garbage
    st.integers(0, 9).map(lambda n: members(response(n))[:-30]),                     # truncated
    st.integers(0, 9).map(lambda n: members(response(n) + response(n + 1))),         # two in one member
    st.integers(0, 9).map(lambda n: stored(warc_record(                              # a crawled archive
        "response", f"https://archive{n}.example/", http(members(response(n), response(n + 1)))))),
    st.just(members(b"") + members(b"no record")),
)
plain_bytes = st.one_of(
    st.integers(0, 9).map(response),
    st.binary(min_size=1, max_size=60),
    st.integers(0, 9).map(lambda n: warc_record("response", f"https://w{n}.example/", http(page(n)), length=20 + n)),
    st.integers(0, 9).map(lambda n: warc_record("resource", f"https://a{n}.example/", response(n) + response(n + 1))),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(record_bytes), max_size=8), plain=st.lists(plain_bytes, max_size=6),
       step=st.one_of(st.integers(1, 40), st.integers(40, 3000)), zipped=st.booleans())
def test_splits_together_are_the_file(tmp_path, parts, plain, step, zipped):
    data = b"".join([members(INFO), *parts] if zipped else [INFO, *plain])
    split = write(tmp_path, data, "any.warc")
    whole = read(split)
    step = max(step, len(data) // 60)
    pieces = [r for start in range(0, len(data), step) for r in read(split, start, start + step)]
    assert [dataclasses.astuple(r) for r in pieces] == [dataclasses.astuple(r) for r in whole]
    assert len({(r.offset, r.inner) for r in whole}) == len(whole)


def test_splits_beyond_the_lookback(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "LOOKBACK", 100)
    made = [response(n) for n in range(40)]
    for data, name in ((members(*made), "x.warc.gz"), (b"".join(made), "x.warc")):
        split = write(tmp_path, data, name)
        pieces = [r for start in range(0, len(data), 777) for r in read(split, start, start + 777)]
        assert urls(pieces) == urls(read(split)) and len(pieces) == 40
