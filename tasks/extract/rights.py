"""What a page says about its own use: opt-outs and licences, found without parsing it again.

Sources: robots meta elements and X-Robots-Tag (https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag),
noai and noimageai (DeviantArt, 2022), the TDM Reservation Protocol (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/),
Content-Usage (https://datatracker.ietf.org/doc/draft-ietf-aipref-attach/), rel=license
(https://microformats.org/wiki/rel-license, RFC 8288) and Creative Commons' licence addresses.
"""

import re
from collections.abc import Iterator

SIGNALS = ("noai", "noimageai", "noindex", "nosnippet", "noarchive", "none", "notrain")
# Crawlers that gather text to train models: whoever tells one of them not to index a page opts out (noai).
AI_AGENTS = frozenset("""ai2bot amazonbot anthropic-ai applebot-extended bytespider ccbot claude-web claudebot cohere-ai
    cohere-training-data-crawler diffbot facebookbot google-cloudvertexbot google-extended gptbot img2dataset
    meta-externalagent omgili omgilibot pangubot timpibot webzio-extended""".lower().split())
_EVERYBODY = frozenset(["", "*", "robots", "x-robots-tag", "googlebot", "bingbot"])  # search engines stand for all
_KEEPS_OUT = frozenset(["noindex", "none"])
_VALUED = frozenset(["max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"])

_HEAD, _REACH = 64 << 10, 1 << 20   # bytes in which meta elements are looked for: at least, at most (a long head)
_META_BYTES = 4096           # of a meta element
_MAX_METAS = 100             # of interest that are read
# A part of every name of interest.
_PARTS = (b"bot", b"tdm-", b"extended", b"anthropic", b"spider", b"claude", b"cohere", b"img2dataset", b"external",
          b"omgili")
_ATTRIBUTE = re.compile(rb"""(?<![\w-])(name|http-equiv|property|content|value)\s*=\s*"""
                        rb"""(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_AGENT = re.compile(r"[a-z0-9*][a-z0-9_.*-]{0,60}")
_NO_TRAINING = re.compile(r"(?:^|[,;\s])(?:train-(?:gen)?ai|ai-train)\s*=\s*(?:n|no|\?0)(?:$|[,;\s])")
_SLASH = rb"(?:\\?/|%2F)"    # as it is, in JSON, in a parameter
_CC = re.compile(rb"creativecommons\.org" + _SLASH + rb"(?:licenses" + _SLASH
                 + rb"((?:by|nc|nd|sa)(?:-(?:nc|nd|sa)){0,3})" + _SLASH + rb"(\d\.\d)|publicdomain" + _SLASH
                 + rb"(zero|mark)" + _SLASH + rb")")
_IN_WORD = frozenset(bytes([c]) for c in range(256) if chr(c).isalnum() or c in b"_-")
_PUBLIC = {"zero": "cc0-1.0", "mark": "pdm-1.0"}
# Up to the first letter of "license", the rest of which has been found.
_REL = re.compile(rb"""\brel\s{0,8}=\s{0,8}(?:["']([a-z-]{1,40}\s{1,8}){0,4}l|l)$""", re.IGNORECASE)


def rights_signals(html: bytes, headers: list[tuple[str, str]]) -> list[str]:
    """The signals of a page, sorted: those of SIGNALS, tdm-reservation, license, cc-by-4.0 and the like.

    Args:
        html: the page in UTF-8 (or any encoding that ASCII reads).
        headers: of its HTTP response, names in lower case.

    A directive counts when it is for everybody, for a search engine, or for one of AI_AGENTS; noindex and none for one
    of those are an opt-out, noai. The page's own TDM reservation comes before its header's, as that protocol says.
    A Creative Commons address anywhere in the page counts as its licence: pages rarely mark it better.
    """
    found: set[str] = set()
    reserved = None
    for name, value in headers:
        if name == "x-robots-tag":
            found |= _directives(value)
        elif name == "tdm-reservation":
            reserved = value.strip() == "1" or bool(reserved)
        elif name == "content-usage" and _NO_TRAINING.search(value.lower()):
            found.add("notrain")
        elif name == "link" and "license" in value.lower():
            value = value.encode("utf-8", "replace")
            if _rel_license(value):
                found.add("license")
                found |= _licences(value)
    own = None
    for name, content in _metas(html):
        if name == "tdm-reservation":
            own = content.strip() == "1" or bool(own)
        else:
            found |= _directives(content, name)
    if own if own is not None else reserved:
        found.add("tdm-reservation")
    if b"creativecommons.org" in html:
        found |= _licences(html)
    if _rel_license(html):
        found.add("license")
    return sorted(found)


def _directives(value: str, agent: str = "") -> set[str]:
    """The signals in the value of a robots meta element or header, which may name agents: `gptbot: noindex, noai`."""
    found = set()
    for part in value.lower().split(","):
        before, colon, after = part.partition(":")
        before = before.strip()
        if colon and before not in _VALUED and _AGENT.fullmatch(before):
            agent, part = before, after
        for directive in part.split():
            if agent in AI_AGENTS and directive in _KEEPS_OUT:
                found.add("noai")
            if directive in SIGNALS and (agent in AI_AGENTS or agent in _EVERYBODY):
                found.add(directive)
    return found


def _rel_license(data: bytes) -> bool:
    """Whether a link says rel=license. The word is looked for first: it is rare, and `rel` is not."""
    at = data.find(b"icense")
    while at >= 0:
        if data[at + 6:at + 7] not in _IN_WORD and _REL.search(data, max(0, at - 200), at):
            return True
        at = data.find(b"icense", at + 6)
    return False


def _licences(data: bytes) -> set[str]:
    found = set()
    for licence, version, public in _CC.findall(data):
        if public:
            found.add(_PUBLIC[public.decode().lower()])
        else:  # version 1.0 wrote by-nd-nc
            parts = licence.decode().lower().split("-")
            found.add("-".join(["cc", *sorted(set(parts), key="by nc nd sa".split().index), version.decode()]))
    return found


def _metas(html: bytes) -> Iterator[tuple[str, str]]:
    """(name, content) in lower case of the meta elements that may be of interest, outside comments."""
    reach, left = max(_HEAD, html.find(b"</head", 0, _REACH)), _MAX_METAS
    for opening in (b"<meta", b"<META", b"<Meta"):  # faster than a pattern, or a copy in lower case
        end = 0
        while (start := html.find(opening, end, reach)) >= 0:
            end = html.find(b">", start, start + _META_BYTES)
            if end < 0:
                end = start + 5
                continue
            meta = html[start:end].lower()
            if not any(part in meta for part in _PARTS):
                continue
            values: dict[bytes, str] = {}
            for name, *value in _ATTRIBUTE.findall(meta):
                values.setdefault(name, b"".join(value).decode("utf-8", "replace"))
            name = (values.get(b"name") or values.get(b"http-equiv") or values.get(b"property") or "").strip()
            if name and not _in_comment(html, start):
                yield name, values.get(b"content", values.get(b"value", ""))
                left -= 1
                if not left:
                    return


def _in_comment(html: bytes, at: int) -> bool:
    opened = html.rfind(b"<!--", max(0, at - (64 << 10)), at)
    return opened >= 0 and html.find(b"-->", opened, at) < 0
