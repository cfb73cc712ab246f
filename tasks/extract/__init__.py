"""Extract: from a range of an archive file to documents, and a fate for every record that gave none.

A record is a response, resource, conversion (WET) or revisit, or a span of bytes that cannot be read;
requests, metadata and file information describe others and are no input. Each gives one row: a document,
or a fate whose rule is one of RULES. JSONL and Parquet rows are records too.
"""

import gc
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from tasks.extract import opt_out
from tasks.extract.codings import Expansion, Undecodable, dechunk, decompress
from tasks.extract.content import Page, clean, main_text
from tasks.extract.decode import decode_text, in_utf8
from tasks.extract.main_content import parse
from tasks.extract.plain import identity
from tasks.extract.records import Record, Unreadable, read_records
from tasks.extract.rights import rights_signals
from tasks.extract.rows import Row, read_rows
from tasks.ingest import Split
from tasks.pool_child import NO_ITEM
from tasks.schema import DOCUMENTS, FATES, doc_id, id_array
from tasks.stage import Result, Stage, attempt, resource_digest
from tasks.storage import Place

RULES = {
    "opt_out": "the page's domain or URL (detail says which) is on a list of extract.opt_out",
    "blocklist": "the page's domain or URL (detail says which) is on a list of extract.blocklists",
    "http_status": "the server answered with another status (value) than those wanted",
    "media_type": "neither HTML nor plain text (detail: the media type)",
    "too_large": "the record or its decoded body is larger (value, bytes) than max_record_bytes",
    "expansion": "the record or its body inflates by a greater factor (value) than max_expansion",
    "too_deep": "elements nested deeper (value) than max_depth; engines resiliparse and trafilatura only",
    "attributes": "more attributes in an element, squared (value, summed), than max_attribute_pairs; likewise",
    "charset": "no encoding decodes the body: too many characters (value, share) undecodable",
    "content_encoding": "the body does not inflate as its headers say",
    "empty_text": "the page has no main text",
    "unreadable": "bytes that hold no readable record (value: how many; detail: why)",
    "revisit": "the server sent nothing new; the record refers to an earlier one",
    "no_http": "a response without a readable HTTP header",
    "timeout": "the page took longer than allowed in an earlier attempt",
    "crash": "the extractor died on the page in an earlier attempt",
    "memory": "the page took more memory than allowed in an earlier attempt",
    "error": "the extractor raised an exception (detail: its class)",
}
_INPUT = {"response", "resource", "conversion", "revisit"}
_DESCRIBING = frozenset(["request", "metadata", "warcinfo"])
_HTML = {"text/html", "application/xhtml+xml", "application/xhtml"}
_SMALL = 1 << 20             # bytes up to which any expansion is harmless
_HELD = 16 << 20             # characters of text that are held as Python's strings: a shard may be a file of gigabytes
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s;\"']{1,40})", re.IGNORECASE)
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^/?#@]*@)?(\[[^\]]*\]|[^/:?#\s]*)", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)?[ \t]+(\d{3})\b[^\n]*\n", re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\n\r?\n")


class Extract(BaseModel):
    """Settings of the extract stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: Literal["gristmill", "resiliparse", "trafilatura"] = Field(
        "gristmill", description="finds the main text; the others are slower or less exact")
    format: Literal["text", "markdown"] = Field(
        "text", description="markdown marks headings, quotations, tables and code (not by resiliparse)")
    comments: bool = Field(False, description="whether readers' comments are part of a page's main text")
    statuses: tuple[int, ...] = Field((200, 203), description="HTTP status codes whose pages are wanted")
    opt_out: tuple[Place, ...] = Field(
        (), description="lists of domains and URLs whose owners want no use of their pages: paths or URIs of text "
        "files, plain or .gz, an entry a line; a domain covers those below it")
    blocklists: tuple[Place, ...] = Field(
        (), description="lists of the same form whose pages are not wanted, such as the UT1 categories")
    max_record_bytes: int = Field(16 << 20, gt=0, description="largest record, and largest decoded body, in bytes")
    max_expansion: float = Field(
        200.0, gt=1, description="largest ratio of a body's decoded to its compressed size, above 1 MiB decoded")
    max_depth: int = Field(
        512, gt=0, description="deepest nesting of elements (Blink's parser stops at 512 too); engines resiliparse and "
        "trafilatura only: the time of gristmill is linear at any depth, and it refuses no page for it")
    max_work: int = Field(
        20_000_000, gt=0, description="sum of the depths of a page's tags above which its whole visible text is taken, "
        "because the search for the main text would take some 5 s or more; engines resiliparse and trafilatura only")
    max_attribute_pairs: int = Field(
        100_000_000, gt=0, description="sum over a page's tags of their attributes squared, parsing takes 1 s at this; "
        "engines resiliparse and trafilatura only")


extract = Stage("extract", version=4, settings=Extract, needs={}, makes=DOCUMENTS,
                resources=lambda settings: [*settings.opt_out, *settings.blocklists],
                libraries=("resiliparse", "trafilatura", "chardet", "ftfy", "isal", "unicodedata"))


class _Drop(Exception):
    """A record gives no document: the rule, and what decided."""

    def __init__(self, rule: str, value: float | None = None, threshold: float | None = None,
                 detail: str | None = None):
        super().__init__(rule)
        self.fate = {"rule": rule, "value": value, "threshold": threshold, "detail": detail}


@extract.shard
def documents(split: Split, settings: Extract) -> Result:
    """The documents of `split` in the order of the file, and the fates of its other records.

    Raises OSError when the file cannot be read at all, UserError for a list of domains that cannot be read.
    """
    _compiled()
    lists = {rule: opt_out.load(tuple((uri, resource_digest(uri)) for uri in uris))
             for rule, uris in (("opt_out", settings.opt_out), ("blocklist", settings.blocklists)) if uris}
    made: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    tables, held = [], 0
    for record in _records(split, settings):
        origin = _origin(record, split)
        try:
            if isinstance(record, Unreadable):
                raise _Drop("expansion" if record.reason == "expansion" else "unreadable", record.length,
                            detail=record.reason)
            for rule, entries in lists.items():
                if kind := opt_out.matched(entries, origin["url"]):
                    raise _Drop(rule, detail=kind)
            # Places are unique in a file; those inside a member that holds several records are told apart by sign.
            if reason := attempt(record.offset if not record.inner else -2 - record.offset - record.inner):
                raise _Drop(reason)
            made.append(origin | _document(record, settings))
            held += len(made[-1]["text"])
        except _Drop as drop:
            dropped.append(origin | drop.fate)
        except MemoryError:
            dropped.append(origin | {"rule": "memory"})
        except Exception as error:  # whatever a parser makes of a page, the page's fate says so and the rest goes on
            dropped.append(origin | {"rule": "error", "detail": type(error).__name__})
        attempt(NO_ITEM)  # what follows, reading on or writing what was made, is not this page's fault
        if held > _HELD:
            tables, made, held = [*tables, _table(made, DOCUMENTS)], [], 0
    for fate in dropped:
        fate |= {"outcome": "dropped", "stage": "extract"}
    table = pa.concat_tables([*tables, _table(made, DOCUMENTS)])
    return Result(table, _table(dropped, FATES), rows_in=len(table) + len(dropped))


@lru_cache(maxsize=1)
def _compiled() -> None:
    """Has all that a page needs compiled and loaded before the first one: on a fresh machine that takes longer than a
    page may, and would end the process as if the page hung."""
    prose = "It grinds grain to flour, for the café too. " * 20
    html = f"<title>A mill</title><article><p>{prose}</p></article>"
    rights_signals(html.encode(), [])
    identity(main_text(html, engine="gristmill", search=True, comments=False).text)
    gc.freeze()  # what is there by now stays: it need not be looked through each time


def _records(split: Split, settings: Extract) -> Iterator[Record | Unreadable | Row]:
    if split.kind != "warc":
        yield from read_rows(split, settings.max_record_bytes)
        return
    for record in read_records(split.path, split.start, split.end, settings.max_record_bytes, _DESCRIBING):
        if isinstance(record, Unreadable) or record.type in _INPUT:
            yield record


def _origin(record: Record | Unreadable | Row, split: Split) -> dict[str, Any]:
    """The columns that say where a row comes from; they are the same in DOCUMENTS and FATES."""
    inner = f"#{record.inner}" if record.inner else ""
    url = "" if isinstance(record, Unreadable) else record.headers.get("warc-target-uri", "").strip("<>")
    host = _HOST.match(url)
    return {"doc_id": doc_id(split.uri + inner, record.offset), "url": url,
            "domain": host.group(1).lower().rstrip(".") if host else "",
            "snapshot": split.snapshot, "source": split.source, "warc_file": split.uri, "warc_offset": record.offset,
            "warc_length": record.length}


def _document(record: Record | Row, settings: Extract) -> dict[str, Any]:
    """The other columns of DOCUMENTS. Raises _Drop."""
    if record.type == "revisit":
        raise _Drop("revisit")
    if record.size > settings.max_record_bytes:
        raise _Drop("too_large", record.size, settings.max_record_bytes)
    if record.size > _SMALL and record.expansion > settings.max_expansion:
        raise _Drop("expansion", record.expansion, settings.max_expansion)
    if isinstance(record, Row):
        page, charset, size, signals = Page(clean(record.title), clean(record.text)), "utf-8", record.size, []
    elif record.type == "conversion":
        text, charset = _decoded(decode_text, record.block, "utf-8")
        page, size, signals = Page("", clean(text)), record.size, []
    else:
        page, charset, size, signals = _web_page(record, settings)
    if not page.text:
        raise _Drop("empty_text", 0)
    return {"content_id": identity(page.text), "fetched_at": _instant(record.headers.get("warc-date", "")),
            "charset": charset, "title": page.title, "rights": signals, "html_bytes": size, "text": page.text}


def _web_page(record: Record, settings: Extract) -> tuple[Page, str, int, list[str]]:
    """(page, charset, bytes of the decoded body, rights) of a response or resource record. Raises _Drop."""
    headers, body = _http(record, settings)
    fields = dict(reversed(headers))  # the first of a name counts, but codings add up
    codings = ",".join(value for name in ("content-encoding", "transfer-encoding") for key, value in headers
                       if key == name)
    content_type = fields.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if not media_type:
        media_type = record.headers.get("warc-identified-payload-type") or _sniffed(body)
    if media_type not in _HTML and media_type != "text/plain":
        raise _Drop("media_type", detail=media_type if _MEDIA_TYPE.fullmatch(media_type) else "invalid")
    if "chunked" in codings.lower():
        body = dechunk(body)
    limit = min(settings.max_record_bytes, max(_SMALL, int(settings.max_expansion * len(body))))
    encoded = len(body)
    try:
        body = decompress(body, codings, limit)
    except Expansion as expansion:
        if limit == settings.max_record_bytes:
            raise _Drop("too_large", expansion.size, limit) from None
        raise _Drop("expansion", expansion.size / encoded, settings.max_expansion) from None
    except Undecodable:
        raise _Drop("content_encoding") from None
    declared = _CHARSET.search(content_type)
    label = declared.group(1) if declared else None
    if media_type == "text/plain":
        text, charset = _decoded(decode_text, body, label)
        return Page("", clean(text)), charset, len(body), rights_signals(b"", headers)
    html, charset = _decoded(in_utf8, body, label)
    blocks = parse(html)
    cost = blocks.cost
    if settings.engine != "gristmill":  # which takes time linear in the bytes
        if cost.depth > settings.max_depth:
            raise _Drop("too_deep", cost.depth, settings.max_depth)
        if cost.pairs > settings.max_attribute_pairs:
            raise _Drop("attributes", cost.pairs, settings.max_attribute_pairs)
    page = main_text(html, engine=settings.engine, search=cost.work <= settings.max_work, comments=settings.comments,
                     markdown=settings.format == "markdown", blocks=blocks)
    return page, charset, len(body), rights_signals(html, headers)


def _http(record: Record, settings: Extract) -> tuple[list[tuple[str, str]], bytes]:
    """HTTP headers (names in lower case) and the body as sent. Raises _Drop."""
    status = _STATUS.match(record.block)
    if record.type == "resource" and status is None:
        return [("content-type", record.headers.get("content-type", ""))], record.block
    if status is None:
        raise _Drop("no_http")
    if int(status.group(1)) not in settings.statuses:
        raise _Drop("http_status", int(status.group(1)), settings.statuses[0] if settings.statuses else None)
    end = _BLANK_LINE.search(record.block, status.end() - 1)
    if end is None:
        raise _Drop("no_http")
    headers = []
    for line in record.block[status.end():end.start()].decode("latin-1").split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    return headers, record.block[end.end():]


def _sniffed(body: bytes) -> str:
    head = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    html = head.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<!--", b"<title")) or b"<html" in head
    return "text/html" if html else "application/octet-stream"


def _decoded(decode: Callable, body: bytes, declared: str | None) -> tuple:
    try:
        return decode(body, declared)
    except Undecodable as undecodable:
        raise _Drop("charset", undecodable.args[0], detail="undecodable") from None


def _instant(date: str) -> datetime | None:
    """A WARC-Date (W3C form of ISO 8601, UTC) as a time; None when it is not one."""
    try:
        instant = datetime.fromisoformat(date)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        ids = isinstance(field.type, pa.UuidType)
        columns.append(id_array(values) if ids else pa.array(values, field.type))
    return pa.table(columns, schema=schema)
