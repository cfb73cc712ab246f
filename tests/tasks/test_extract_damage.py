"""Corrupting a hundredth of the members of a shard costs those members and no other, whatever the damage; and whatever
is done to an archive, reading it raises nothing, ends, and accounts for every record."""

import gzip
import random
import re

import lz4.frame
import pytest
from archives import http, members, page, response, warc_record, write
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.extract import Extract, documents
from tasks.extract.records import Record, Unreadable, read_records
from tasks.schema import id_bytes

PACKS = {
    "gz": lambda data: gzip.compress(data, 6, mtime=0),
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


DAMAGES = {
    "a bit of the header": lambda data, chance: flipped(data, chance.randrange(10)),
    "a bit of the body": lambda data, chance: flipped(data, chance.randrange(10, len(data) - 8)),
    "a bit of the checksum": lambda data, chance: flipped(data, len(data) - chance.randrange(1, 9)),
    "truncated": lambda data, chance: data[:chance.randrange(1, len(data))],
    "without its trailer": lambda data, chance: data[:-8],
    "garbage inside": lambda data, chance: (lambda at: data[:at] + chance.randbytes(300) + data[at:])(
        chance.randrange(len(data))),
    "zeros inside": lambda data, chance: (lambda at: data[:at] + bytes(50) + data[at + 50:])(
        chance.randrange(len(data))),
    "bytes missing": lambda data, chance: (lambda at: data[:at] + data[at + 40:])(chance.randrange(len(data))),
    "gone": lambda data, chance: b"",
}


@pytest.mark.parametrize("pack", PACKS)
def test_a_hundredth_of_the_members(tmp_path, pack):
    whole = [PACKS[pack](response(n, page(n, f"<p>{random.Random(n).randbytes(20 * (n % 50)).hex()}</p>")))
             for n in range(500)]
    for seed, (name, damage) in enumerate(DAMAGES.items()):
        chance = random.Random(seed)
        hurt = set(chance.sample(range(500), 5))
        parts = [damage(part, chance) if n in hurt else part for n, part in enumerate(whole)]
        split = write(tmp_path, b"".join(parts), f"x.warc.{pack}")
        found = list(read_records(split.path, 0, split.end, 1 << 20))
        read = {r.headers["warc-target-uri"] for r in found if isinstance(r, Record)}
        lost = {n for n in range(500) if f"https://mill{n}.example.org/page" not in read}
        assert lost <= hurt, (name, lost - hurt)
        places = [sum(map(len, parts[:n])) for n in sorted(lost) if parts[n]]
        spans = [r for r in found if isinstance(r, Unreadable)]
        # damaged neighbours may share a span; garbage that the format passes over need not be one
        assert all(any(s.offset <= place < s.offset + s.length for s in spans) for place in places), name
        assert sum(s.length for s in spans) <= sum(len(parts[n]) for n in hurt), name


def test_the_fates_of_a_damaged_shard(tmp_path):
    chance = random.Random(1)
    parts = [members(response(n)) for n in range(300)]
    for n, damage in zip(chance.sample(range(300), 6), DAMAGES.values(), strict=False):
        parts[n] = damage(parts[n], chance)
    result = documents(write(tmp_path, b"".join(parts)), Extract())
    assert len(result.table) >= 294 and result.rows_in == len(result.table) + len(result.fates)
    assert set(result.fates["rule"].to_pylist()) <= {"unreadable"}


BODY = http(page(3), Content_Length=len(page(3)))
RECORDS = [
    warc_record("warcinfo", "", b"software: test\r\n"), response(0), response(1, gzip.compress(page(1)),
                                                                             Content_Encoding="gzip"),
    response(2, b"5\r\nhello\r\nff\r\n<p>cut", Transfer_Encoding="chunked"), response(3, content_type="text/plain"),
    warc_record("revisit", "https://r.example/", b""),
    warc_record("conversion", "https://w.example/", "Größe".encode()),
    warc_record("response", "https://lf.example/", http(page(4)).replace(b"\r\n", b"\n"), line="\n", end=b"\n\n"),
    b"filedesc://x.arc 0.0.0.0 20140216050221 text/plain 20\n1 0 Test\nURL IP-addr\n\n",
    b"http://arc.example/ 1.2.3.4 20140216050221 text/html %d\n" % len(BODY) + BODY + b"\n",
]
edit = st.one_of(
    st.tuples(st.just("flip"), st.integers(0), st.integers(0, 7)),
    st.tuples(st.just("write"), st.integers(0), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("insert"), st.integers(0), st.one_of(st.binary(max_size=60), st.sampled_from(
        [b"\x1f\x8b\x08", b"WARC/1.0\r\n", b"\r\n\r\n", b"\0" * 99, b"\x50\x2a\x4d\x18\xff\xff\xff\xff"]))),
    st.tuples(st.just("cut"), st.integers(0), st.integers(1, 400)),
    st.tuples(st.just("end"), st.integers(0), st.just(None)),
    st.tuples(st.just("number"), st.integers(0), st.sampled_from([b"0", b"-1", b"7", b"99999", b"9" * 30, b"x"])),
)


def edited(data: bytes, changes) -> bytes:
    raw = bytearray(data)
    for kind, at, value in changes:
        at %= len(raw) + 1
        if kind == "flip":
            raw[at:at + 1] = (byte ^ 1 << value for byte in raw[at:at + 1])
        elif kind == "write":
            raw[at:at + len(value)] = value
        elif kind == "insert":
            raw[at:at] = value
        elif kind == "cut":
            del raw[at:at + value]
        elif kind == "end":
            del raw[at:]
        elif numbers := list(re.finditer(rb"(?<=[ :])\d+(?=\r?\n)", raw)):
            place = numbers[at % len(numbers)]
            raw[place.start():place.end()] = value
    return bytes(raw)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(RECORDS), min_size=1, max_size=6), before=st.lists(edit, max_size=2),
       pack=st.sampled_from(["none", *PACKS]), size=st.one_of(st.none(), st.integers(20, 2000)),
       after=st.lists(edit, max_size=3), step=st.integers(50, 3000))
def test_anything_that_is_done_to_an_archive(tmp_path, chosen, before, pack, size, after, step):
    if before:
        chosen = [edited(b"".join(chosen), before)]
    if size:  # members without regard to records
        data = b"".join(chosen)
        chosen = [data[i:i + size] for i in range(0, len(data), size)]
    data = edited(b"".join(map(PACKS.get(pack, bytes), chosen)), after)
    split = write(tmp_path, data, "x.warc.gz")
    found = [r.offset for r in read_records(split.path, 0, split.end, 1 << 16)]
    pieces = [r.offset for start in range(0, len(data), step)
              for r in read_records(split.path, start, start + step, 1 << 16)]
    assert pieces == found
    result = documents(split, Extract(max_record_bytes=1 << 16))
    ids = id_bytes(result.table["doc_id"]).to_pylist() + id_bytes(result.fates["doc_id"]).to_pylist()
    assert len(set(ids)) == len(ids) == result.rows_in
