"""Every record gives a document or one fate, whatever it holds."""

import gzip
import json
import random
import resource
import time
import zlib
from dataclasses import replace
from datetime import UTC, datetime

import brotli
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import DATE, http, members, page, response, warc_record, write
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import extract as extraction
from tasks.extract import RULES, Extract, documents
from tasks.pool_child import NO_ITEM
from tasks.schema import DOCUMENTS, FATES, content_id, doc_id, id_bytes

TEXT = "the miller told stories instead of grinding"


def run(tmp_path, *records, name="x.warc.gz", **chosen):
    data = members(*records) if name.endswith("warc.gz") else b"".join(records)
    return documents(write(tmp_path, data, name), Extract(**chosen))


def only_fate(result):
    assert len(result.table) == 0 and len(result.fates) == 1 and result.rows_in == 1
    fate = result.fates.to_pylist()[0]
    assert fate["outcome"] == "dropped" and fate["stage"] == "extract" and fate["rule"] in RULES
    return fate["rule"], fate["value"], fate["threshold"], fate["detail"]


def test_a_document(tmp_path):
    info, request = warc_record("warcinfo", "", b"x"), warc_record("request", "https://x/", b"GET /")
    result = run(tmp_path, info, response(7), request)
    assert result.rows_in == 1 and result.table.schema.equals(DOCUMENTS) and result.fates.schema.equals(FATES)
    row = result.table.to_pylist()[0]
    offset = len(members(info))
    assert row["doc_id"].bytes == doc_id("home:/x.warc.gz", offset) and row["warc_offset"] == offset
    assert row["warc_length"] == len(members(response(7)))
    assert row["url"] == "https://mill7.example.org/page" and row["domain"] == "mill7.example.org"
    assert (row["snapshot"], row["source"], row["warc_file"]) == ("S", "web", "home:/x.warc.gz")
    assert row["fetched_at"] == datetime.fromisoformat(DATE).astimezone(UTC)
    assert row["charset"] == "utf-8" and row["title"] == "Page 7" and row["html_bytes"] == len(page(7))
    assert TEXT in row["text"] and row["content_id"].bytes == content_id(row["text"])


CODINGS = {
    "gzip": lambda b: gzip.compress(b, mtime=0),
    "deflate": zlib.compress,
    "raw deflate": lambda b: zlib.compress(b)[2:-4],
    "br": brotli.compress,
    "zstd": lambda b: pa.Codec("zstd").compress(b, asbytes=True),
}


def chunked(body, size=300):
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("chunk", [False, True])
@pytest.mark.parametrize("coding", CODINGS)
def test_codings_in_any_combination(tmp_path, coding, chunk):
    body = CODINGS[coding](page(1))
    headers = {"Content_Encoding": coding.split()[-1]}
    if chunk:
        body, headers["Transfer_Encoding"] = chunked(body), "chunked"
    result = run(tmp_path, response(1, body, **headers), response(2))
    assert result.table["text"].to_pylist()[0].count(TEXT) == 1 and len(result.table) == 2


STACKS = [("gzip, br", ["gzip", "br"]), ("deflate,zstd", ["deflate", "zstd"]), ("gzip, gzip", ["gzip", "gzip"]),
          ("gzip, gzip", ["gzip"]), ("br", ["gzip"]), ("", ["gzip"]), ("", ["zstd"]), ("identity", ["gzip"]),
          ("gzip, deflate, br", ["gzip", "deflate", "br"]), ("x, br", ["br"])]


@pytest.mark.parametrize("chunk", [False, True])
@pytest.mark.parametrize(("header", "codings"), STACKS)
def test_stacked_and_false_codings(tmp_path, header, codings, chunk):
    body = page(1)
    for coding in codings:
        body = CODINGS[coding](body)
    lines = [("Content_Encoding", value.strip()) for value in header.split(",") if value]
    made = http(chunked(body, 70) if chunk else body, **({"Transfer_Encoding": "chunked"} if chunk else {}))
    for name, value in reversed(lines):  # each in a line of its own
        made = made.replace(b"\r\n", f"\r\n{name.replace('_', '-')}: {value}\r\n".encode(), 1)
    result = run(tmp_path, warc_record("response", "https://x.example/", made))
    assert result.table["text"].to_pylist()[0].count(TEXT) == 1


def test_a_transfer_coding_under_the_chunks(tmp_path):
    result = run(tmp_path, response(1, chunked(gzip.compress(page(1))), Transfer_Encoding="gzip, chunked"))
    assert len(result.table) == 1


def test_a_body_of_several_gzip_members(tmp_path):
    half = len(page(1)) // 2
    body = gzip.compress(page(1)[:half]) + gzip.compress(page(1)[half:])
    assert TEXT in run(tmp_path, response(1, body, Content_Encoding="gzip")).table["text"][0].as_py()


@pytest.mark.parametrize("wrong", [b"1\r\n", b"12b\r\n", b"12f\r\n", b"fff0\r\n", b"zz\r\n", b""])
def test_wrong_chunk_sizes(tmp_path, wrong):
    body = page(1, "<p>and more of the same, to the end of this text</p>" * 20)
    framed = chunked(body).replace(b"12c;ext=1\r\n", b"\0", 1).replace(b"12c;ext=1\r\n", wrong, 1).replace(
        b"\0", b"12c;ext=1\r\n", 1)
    text = run(tmp_path, response(1, framed, Transfer_Encoding="chunked")).table["text"].to_pylist()[0]
    assert TEXT in text and text.count("to the end of this text") >= 18


def test_headers_that_the_crawler_made_untrue(tmp_path):
    """Many crawlers store the decoded body under the headers as they were sent."""
    result = run(tmp_path, *(response(n, Content_Encoding=coding, Transfer_Encoding="chunked")
                             for n, coding in enumerate(["gzip", "br", "deflate", "zstd", "unknown"])))
    assert len(result.table) == 5


def test_a_cut_body_gives_what_had_arrived(tmp_path):
    long = page(1, "<p>and more of the same</p>" * 2000)
    for coding in ("gzip", "deflate"):
        result = run(tmp_path, response(1, CODINGS[coding](long)[:-40], Content_Encoding=coding))
        assert len(result.table) == 1


def test_rules_with_their_values(tmp_path):
    cases = [
        (response(1, status="404 Not Found"), ("http_status", 404, 200, None)),
        (response(1, content_type="image/png"), ("media_type", None, None, "image/png")),
        (response(1, content_type="jane@doe.example of/x"), ("media_type", None, None, "invalid")),
        (response(1, b"<html><body><script>x</script></body></html>"), ("empty_text", 0, None, None)),
        (warc_record("revisit", "https://x/", b""), ("revisit", None, None, None)),
        (warc_record("response", "dns:x", b"20250101 1.2.3.4"), ("no_http", None, None, None)),
        (warc_record("response", "https://x/", b"HTTP/1.1 200 OK\r\nA: b"), ("no_http", None, None, None)),
        (response(1, b"\x1f\x8b\x08garbage", Content_Encoding="gzip"), ("content_encoding", None, None, None)),
        (response(1, page(1, "x" * 70_000)), ("too_large", len(http(page(1, "x" * 70_000))), 65536, None)),
    ]
    for record, fate in cases:
        assert only_fate(run(tmp_path, record, max_record_bytes=65536)) == fate


def test_an_unreadable_span(tmp_path):
    result = documents(write(tmp_path, members(response(0)) + b"garbage" + members(response(1))), Extract())
    assert len(result.table) == 2 and result.rows_in == 3
    fate = result.fates.to_pylist()[0]
    assert (fate["rule"], fate["value"], fate["detail"]) == ("unreadable", 7, "not_a_member")
    assert fate["warc_offset"] == len(members(response(0)))


def test_an_unknown_encoding_falls_on(tmp_path):
    body = page(1, "<p>Œuvre café</p>").decode().encode("cp1252")
    result = run(tmp_path, response(1, body, content_type="text/html; charset=x-klingon"))
    assert result.table["charset"].to_pylist() == ["cp1252"] and "Œuvre café" in result.table["text"][0].as_py()


def test_bytes_in_no_encoding(tmp_path):
    noise = random.Random(1).randbytes(4000).replace(b"\0", b"")
    rule, value, _, _ = only_fate(run(tmp_path, response(1, b"<p>" + noise, content_type="text/html; charset=utf-8")))
    assert rule == "charset" and value > 0.01


def bounded(function):
    """The result; fails when the process grew by more than 600 MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = function()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000
    return result


def test_bombs(tmp_path):
    zeros = bytes(300 << 20)
    for coding in ("gzip", "br"):
        packed = gzip.compress(zeros, 9) if coding == "gzip" else brotli.compress(zeros, quality=4)
        fate = only_fate(bounded(lambda p=packed, c=coding: run(tmp_path, response(1, p, Content_Encoding=c))))
        assert fate[0] in ("expansion", "too_large") and fate[1] > fate[2]
    packed = gzip.compress(bytes(4 << 20))
    fate = only_fate(bounded(lambda: run(tmp_path, response(1, packed, Content_Encoding="gzip"))))
    assert fate[0] == "expansion" and fate[1] > fate[2] == 200
    bomb = warc_record("response", "https://bomb.example/", http(zeros))
    result = bounded(lambda: run(tmp_path, response(0), bomb, response(1)))
    assert len(result.table) == 2 and result.fates["rule"].to_pylist() == ["too_large"]
    small = warc_record("response", "https://bomb.example/", http(b" " * (4 << 20)))
    assert only_fate(run(tmp_path, small))[0] == "expansion"


DEEP = {
    "div": "<div>" * 40_000 + "text",
    "closed": "<span>" * 40_000 + "text" + "</span>" * 40_000,
    "false ends": "<div></b></i></x>" * 40_000 + "text",
    "attributes": "<div title='>' class=\"</div>\">" * 40_000 + "text",
    "self-closing in name only": "<div/>" * 40_000 + "text",
    "after svg": "<svg>" + "<div/>" * 40_000 + "text",
    "in raw text": "<div><textarea></div></textarea>" * 40_000 + "text",
    "upper case": "<DIV>" * 40_000 + "text",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_costs_no_page(tmp_path, name):
    result = bounded(lambda: run(tmp_path, response(1, DEEP[name].encode()), max_expansion=1e6))
    assert result.table["text"].to_pylist() == ["text"]


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_refused_by_an_engine_that_it_slows_down(tmp_path, name):
    result = run(tmp_path, response(0), response(1, DEEP[name].encode()), response(2), max_expansion=1e6,
                 engine="resiliparse")
    assert len(result.table) == 2
    fate = result.fates.to_pylist()[0]
    assert fate["rule"] == "too_deep" and fate["value"] > 39_000 and fate["threshold"] == 512


WIDE = {
    "10 MB of tags": "<b>x</b>" * 1_250_000,
    "unclosed paragraphs": "<p>x" * 1_000_000,
    "entities": "&amp;&lt;&#65;" * 300_000,
    "one tag of attributes": "<div " + " ".join(f"a{n}=1" for n in range(100_000)) + ">text",
    "quotes never closed": "<div a=\"" * 500_000,
    "comments never closed": "<!--" * 500_000,
    "scripts never closed": "<script>" * 300_000,
    "spaces": "<pre>" + " " * 3_000_000 + "x</pre>",
    "depth 200": "<div>" * 200 + "<p>a <b>b</b></p>" * 60_000,
    "lesser signs": "<" * 2_000_000,
    "meta": "<meta " * 200_000,
    "licences": "rel=" * 1_000_000 + "license",
}


@pytest.mark.parametrize("name", WIDE)
def test_large_pages_are_bounded(tmp_path, name):
    """The pool would kill a page after 30 s; these must not need it. (Quadratic ways take minutes.)"""
    began = time.process_time()
    result = bounded(lambda: run(tmp_path, response(1, WIDE[name].encode(), Content_Encoding="identity"),
                                 max_expansion=1e6))
    assert result.rows_in == 1 and time.process_time() - began < 25


def test_a_poisoned_page_is_left_out(tmp_path, monkeypatch):
    split = write(tmp_path, members(response(0), response(1), response(2)))
    offsets = documents(split, Extract()).table["warc_offset"].to_pylist()
    monkeypatch.setattr(extraction, "attempt", {offsets[1]: "timeout"}.get)
    result = documents(split, Extract())
    assert len(result.table) == 2 and result.fates["rule"].to_pylist() == ["timeout"]
    assert result.fates["url"].to_pylist() == ["https://mill1.example.org/page"]


def test_an_exception_is_a_fate_with_its_class_only(tmp_path, monkeypatch):
    def broken(html, **_):
        raise RuntimeError(html)

    run(tmp_path, response(1))                          # what is compiled before the first page is no page
    monkeypatch.setattr(extraction, "main_text", broken)
    assert only_fate(run(tmp_path, response(1))) == ("error", None, None, "RuntimeError")


def test_wet_text_resource_and_plain_text(tmp_path):
    wet = warc_record("conversion", "https://w/", "Größe\r\nund mehr".encode(), more={"Content-Type": "text/plain"})
    resource_ = warc_record("resource", "https://r/", page(1), more={"Content-Type": "text/html"})
    plain = response(2, b"just text", content_type="text/plain")
    texts = run(tmp_path, wet, resource_, plain).table["text"].to_pylist()
    assert texts[0] == "Größe\nund mehr" and TEXT in texts[1] and texts[2] == "just text"


DUMPS = {"": bytes, "gz": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]), "zst": zstd.compress,
         "lz4": lz4.frame.compress}


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "x.jsonl.lz4"])
def test_jsonl(tmp_path, name):
    lines = [json.dumps({"url": "https://j.example/1", "text": "first", "date": DATE}).encode(), b"{not json", b"",
             b'["no object"]', b'{"text": 5}', b'{"text": ""}', '{"text": "größer", "title": "T"}'.encode()]
    data = b"\n".join(lines)
    split = write(tmp_path, DUMPS[name[8:]](data), name)
    result = documents(split, Extract())
    assert result.table["text"].to_pylist() == ["first", "größer"] and result.table["title"].to_pylist() == ["", "T"]
    assert result.table["warc_offset"].to_pylist() == [0, data.index(lines[6])]
    assert result.fates["rule"].to_pylist() == ["unreadable"] * 3 + ["empty_text"] and result.rows_in == 6
    assert result.table["domain"].to_pylist() == ["j.example", ""]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=20), max_size=30), step=st.integers(1, 200))
def test_jsonl_splits_together_are_the_file(tmp_path, texts, step):
    lines = [json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts]
    split = write(tmp_path, "".join(lines).encode(), "x.jsonl")

    def offsets(result):
        return sorted(result.table["warc_offset"].to_pylist() + result.fates["warc_offset"].to_pylist())

    pieces = [type(split)(**(vars(split) | {"start": s, "end": min(s + step, split.end)}))
              for s in range(0, split.end, step)]
    assert sum((offsets(documents(p, Extract())) for p in pieces), []) == offsets(documents(split, Extract()))
    assert documents(split, Extract()).rows_in == len(texts)


def test_a_damaged_jsonl_gz(tmp_path):
    data = gzip.compress(b"".join(b'{"text": "line %d"}\n' % n for n in range(20_000)))
    result = documents(write(tmp_path, data[:-1000], "x.jsonl.gz"), Extract())
    assert len(result.table) > 1000 and result.fates["detail"].to_pylist() == ["truncated"]
    assert documents(write(tmp_path, data + b"xyz", "y.jsonl.gz"), Extract()).fates["detail"].to_pylist() == ["corrupt"]


def test_a_long_file_is_not_held_as_strings(tmp_path, monkeypatch):
    lines = b"".join(b'{"text": "line %d"}\n' % n for n in range(1000))
    split = write(tmp_path, lines, "x.jsonl")
    whole = documents(split, Extract())
    monkeypatch.setattr(extraction, "_HELD", 1000)
    assert documents(split, Extract()).table.equals(whole.table) and whole.rows_in == 1000


def test_parquet(tmp_path):
    rows = pa.table({"url": ["https://p/"] * 10, "text": [f"row {n}" if n != 3 else None for n in range(10)]})
    pq.write_table(rows, tmp_path / "x.parquet", row_group_size=4)
    split = write(tmp_path, (tmp_path / "x.parquet").read_bytes(), "x.parquet")
    whole = documents(type(split)(**(vars(split) | {"end": 10})), Extract())
    assert whole.table["warc_offset"].to_pylist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert whole.fates["rule"].to_pylist() == ["empty_text"]
    part = documents(type(split)(**(vars(split) | {"start": 4, "end": 8})), Extract())
    assert part.table["text"].to_pylist() == [f"row {n}" for n in range(4, 8)]


def test_a_damaged_parquet_page_costs_the_rest_of_its_row_group(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"text": [f"The mill number {i} has ground grist for long." for i in range(90)]})
    pq.write_table(table, path, row_group_size=30, compression="none", use_dictionary=False, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    data[data.index(b"number 40")] ^= 1
    split = write(tmp_path, bytes(data), "x.parquet")
    result = documents(replace(split, end=90), Extract())
    assert len(result.table) == 60 and result.rows_in == 61
    fate = result.fates.to_pylist()[0]
    assert (fate["rule"], fate["warc_offset"], fate["value"], fate["detail"]) == ("unreadable", 30, 30, "corrupt")


def test_a_parquet_column_that_is_no_text(tmp_path):
    pq.write_table(pa.table({"text": [b"abc", b"de"]}), tmp_path / "x.parquet")
    split = replace(write(tmp_path, (tmp_path / "x.parquet").read_bytes(), "x.parquet"), end=2)
    result = documents(split, Extract())
    assert result.fates["detail"].to_pylist() == ["not_a_row"] * 2


def test_a_url_that_is_no_unicode(tmp_path):
    lines = [json.dumps({"text": "The mill.", "url": "https://a.example/\ud800"}), json.dumps({"text": "The river."})]
    result = documents(write(tmp_path, "\n".join(lines).encode(), "x.jsonl"), Extract())
    assert result.table["url"].to_pylist() == ["https://a.example/?", ""]


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_date_beyond_the_calendar_is_no_date(tmp_path, date):
    line = json.dumps({"text": "The mill.", "date": date})
    result = documents(write(tmp_path, line.encode(), "x.jsonl"), Extract())
    assert result.table["fetched_at"].to_pylist() == [None]


def test_a_page_is_blamed_only_while_it_is_worked_on(tmp_path, monkeypatch):
    """Reading the next record, building the tables and writing them are not the fault of the page before."""
    at = []
    monkeypatch.setattr(extraction, "attempt", lambda item: at.append(item))
    read = extraction.read_records

    def reading(*arguments):
        for record in read(*arguments):
            assert not at or at[-1] == NO_ITEM
            yield record

    monkeypatch.setattr(extraction, "read_records", reading)
    run(tmp_path, response(1), response(2), response(3, b"\xff" * 99))
    assert at[-1] == NO_ITEM and at.count(NO_ITEM) == 3 and len(at) == 6


def test_the_same_bytes_whatever_came_before(tmp_path):
    split = write(tmp_path, members(*(response(n) for n in range(5))))
    first = documents(split, Extract())
    documents(write(tmp_path, members(response(9)), "y.warc.gz"), Extract())
    assert documents(split, Extract()).table.equals(first.table)


def test_trafilatura(tmp_path):
    result = run(tmp_path, response(1), response(1), engine="trafilatura")
    first, second = result.table["text"].to_pylist()
    assert TEXT in first and first == second  # its own duplicate filter would empty the second


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_keeps_the_account(tmp_path, data):
    """Bytes overwritten anywhere: nothing raises, every doc_id is unique, and untouched records stay."""
    made = [members(response(n)) for n in range(4)]
    raw = bytearray(b"".join(made))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at:at + data.draw(st.integers(1, 40))] = data.draw(st.binary(max_size=40))
    result = documents(write(tmp_path, bytes(raw)), Extract())
    ids = id_bytes(result.table["doc_id"]).to_pylist() + id_bytes(result.fates["doc_id"]).to_pylist()
    assert len(set(ids)) == len(ids) == result.rows_in
    assert len(result.table) >= 2


def test_code_is_compiled_before_the_clock_of_a_page_runs(tmp_path, monkeypatch):
    called = []
    main_text = extraction.main_text

    def announced(item):
        called.append("attempt")

    def extracted(*args, **kwargs):
        called.append("main_text")
        return main_text(*args, **kwargs)

    monkeypatch.setattr(extraction, "attempt", announced)
    monkeypatch.setattr(extraction, "main_text", extracted)
    extraction._compiled.cache_clear()
    run(tmp_path, response(7))
    assert called == ["main_text", "attempt", "main_text", "attempt"]
