"""What reading makes of one small archive, to the letter: a change here that is meant raises the stage's version."""

import zlib
from datetime import UTC, datetime

from archives import http, response, warc_record, write

from tasks.extract import Extract, documents, extract

DAY = datetime(2025, 5, 1, 12, tzinfo=UTC)


def stored(data: bytes) -> bytes:
    """A gzip member of the same bytes whatever compressed it."""
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def text(n: int, body: bytes, charset: str = "", **headers) -> bytes:
    return response(n, body, content_type=f"text/plain{charset and '; charset=' + charset}", **headers)


RECORDS = [
    warc_record("warcinfo", "", b"software: test\r\n"),
    text(0, "Größe\r\nund mehr \r\n\r\n\r\n\r\nEnde\u200b".encode()),
    text(1, "Мельница у реки мелет зерно".encode("koi8-r"), "koi8-r"),
    text(2, "Мельница у реки мелет зерно с давних времён".encode("cp1251"), "iso-8859-1",
         X_Robots_Tag="gptbot: noindex"),
    text(3, "Itâ€™s a cafÃ©".encode(), TDM_Reservation="1"),
    text(4, b"4\r\nWiki\r\n7\r\npedia i\r\nb\r\nn \r\nchunks.\r\n0\r\n\r\n", Transfer_Encoding="chunked"),
    text(5, zlib.compress(b"deflated"), Content_Encoding="deflate"),
    response(6, status="404 Not Found"),
    response(7, b"\x89PNG", content_type="image/png"),
    warc_record("revisit", "https://again.example/", b""),
    warc_record("conversion", "<https://wet.example/a b>", "Cafe\u0301".encode(), more={"Content-Type": "text/plain"}),
    warc_record("resource", "https://user@Host.Example:81/x", b"a resource", more={"Content-Type": "text/plain"}),
    warc_record("response", "https://long.example/", http(b"says more than it has", content_type="text/plain"),
                length=999),
    b"not a record at all",
    warc_record("response", "dns:x.example", b"20250501"),
]
# Offset, length, URL, domain, charset, rights, text.
DOCUMENTS = [
    (213, 305, "https://mill0.example.org/page", "mill0.example.org", "utf-8", [], "Größe\nund mehr\n\nEnde"),
    (518, 315, "https://mill1.example.org/page", "mill1.example.org", "koi8-r", [], "Мельница у реки мелет зерно"),
    (833, 367, "https://mill2.example.org/page", "mill2.example.org", "cp1251", ["noai", "noindex"],
     "Мельница у реки мелет зерно с давних времён"),
    (1200, 313, "https://mill3.example.org/page", "mill3.example.org", "utf-8", ["tdm-reservation"], "It’s a café"),
    (1513, 343, "https://mill4.example.org/page", "mill4.example.org", "utf-8", [], "Wikipedia in\nchunks."),
    (1856, 315, "https://mill5.example.org/page", "mill5.example.org", "utf-8", [], "deflated"),
    (3272, 255, "https://wet.example/a b", "wet.example", "utf-8", [], "Café"),
    (3527, 263, "https://user@Host.Example:81/x", "host.example", "utf-8", [], "a resource"),
    (3790, 285, "https://long.example/", "long.example", "utf-8", [], "says more than it has"),
    (4341, 280, "https://mill8.example.org/page", "mill8.example.org", "utf-8", [], "the last"),
]
# Offset, URL, rule, value, detail.
FATES = [
    (2171, "https://mill6.example.org/page", "http_status", 404.0, None),
    (2780, "https://mill7.example.org/page", "media_type", None, "image/png"),
    (3055, "https://again.example/", "revisit", None, None),
    (4075, "", "unreadable", 42.0, "not_a_record"),
    (4117, "dns:x.example", "no_http", None, None),
    (4334, "", "unreadable", 7.0, "not_a_member"),
]


def test_golden(tmp_path):
    data = b"".join(map(stored, RECORDS)) + b"garbage" + stored(text(8, b"the last"))
    result = documents(write(tmp_path, data), Extract())
    made = [(r["warc_offset"], r["warc_length"], r["url"], r["domain"], r["charset"], r["rights"], r["text"])
            for r in result.table.to_pylist()]
    fates = [(r["warc_offset"], r["url"], r["rule"], r["value"], r["detail"]) for r in result.fates.to_pylist()]
    assert extract.version == 4 and made == DOCUMENTS and fates == FATES
    assert set(result.table["fetched_at"].to_pylist()) == {DAY}
    assert str(result.table["doc_id"][0]) == "55cd2e1d-3606-8e98-c898-457e22fade60"
    assert str(result.fates["doc_id"][3]) == "28534134-6c70-1d6b-a004-97e1f44ba503"
