"""What a page says about its own use: opt-outs and licences, found without parsing it again.

Sources: robots meta elements and X-Robots-Tag (https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag),
noai and noimageai (DeviantArt, 2022), the TDM Reservation Protocol (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/),
Content-Usage (https://datatracker.ietf.org/doc/draft-ietf-aipref-attach/), rel=license
(https://microformats.org/wiki/rel-license, RFC 8288) and Creative Commons' licence addresses.
"""

import re
from collections.abc import Iterator

import numpy as np

from tasks.compiled import njit
from tasks.extract.hashes import begins, source_key

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
_PARTS = tuple(np.frombuffer(part, np.uint8) for part in (
    b"bot", b"tdm-", b"extended", b"anthropic", b"spider", b"claude", b"cohere", b"img2dataset", b"external",
    b"omgili"))
_META, _HEAD_ENDS, _CENS, _VECO = (np.frombuffer(text, np.uint8) for text in (b"<meta", b"</head", b"cens", b"veco"))
_PIECE = 1024
_FIRST = np.zeros(256, np.bool_)
_FIRST[[part[0] for part in _PARTS]] = True
_FIRST[[part[0] - 32 for part in _PARTS]] = True
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


@njit
def _occur(html, start, four):
    """Whether four letters, in capitals or not, begin in a piece of html: without branches, so many are compared at
    once."""
    end = min(len(html) - 3, start + _PIECE)
    first, second, third, fourth = html[start:end], html[start + 1:], html[start + 2:], html[start + 3:]
    found = False
    for k in range(len(first)):
        found |= ((first[k] | 32) == four[0]) & ((second[k] | 32) == four[1]) & ((third[k] | 32) == four[2]) & (
            (fourth[k] | 32) == four[3])
    return found


@njit
def _sift(html):
    """What is worth a closer look: int32 (elements, 2), where the meta elements of possible interest lie; whether
    `license` and `creativecommons.org` may occur."""
    metas, n_metas, n, reach, after = np.empty((_MAX_METAS, 2), np.int32), 0, min(len(html), _REACH), 0, 0
    may_license = may_cc = False
    for start in range(0, len(html) - 3, _PIECE):
        may_license, may_cc = may_license or _occur(html, start, _CENS), may_cc or _occur(html, start, _VECO)
        if start >= (reach or n) or not (_occur(html, start, _META) or not reach and _occur(html, start, _HEAD_ENDS)):
            continue
        for i in range(start, min(start + _PIECE, reach or n)):
            if html[i] != 60:
                continue
            if not reach and begins(html, i, n, _HEAD_ENDS):
                reach = max(_HEAD, i)
            end = min(len(html), i + _META_BYTES)
            if i < after or not begins(html, i, min(reach or n, end), _META):
                continue
            after = i + 5
            while after < end and html[after] != 62:
                after += 1
            if after == end:
                after = i + 5
            elif n_metas < _MAX_METAS and _may_matter(html, i + 5, after):
                metas[n_metas] = i, after
                n_metas += 1
    while not reach and n_metas and metas[n_metas - 1, 0] + 5 > _HEAD:  # the end of the head was sought in vain
        n_metas -= 1
    return metas[:n_metas], may_license, may_cc


@njit
def _may_matter(html, start, end):
    for k in range(start, end):
        if _FIRST[html[k]]:
            for part in _PARTS:
                if begins(html, k, end, part):
                    return True
    return False


def _entry(key):
    @njit(cache=True)
    def sift(html):
        assert key
        return _sift(html)

    return sift


_sifted = _entry(source_key("hashes"))


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
    metas, may_say_license, may_name_one = _sifted(np.frombuffer(html, np.uint8))
    for name, content in _metas(html, metas):
        if name == "tdm-reservation":
            own = content.strip() == "1" or bool(own)
        else:
            found |= _directives(content, name)
    if own if own is not None else reserved:
        found.add("tdm-reservation")
    if may_name_one and b"creativecommons.org" in html:
        found |= _licences(html)
    if may_say_license and _rel_license(html):
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


def _metas(html: bytes, places: np.ndarray) -> Iterator[tuple[str, str]]:
    """(name, content) in lower case of the meta elements at `places`, outside comments."""
    for start, end in places.tolist():
        values: dict[bytes, str] = {}
        for name, *value in _ATTRIBUTE.findall(html[start:end].lower()):
            values.setdefault(name, b"".join(value).decode("utf-8", "replace"))
        name = (values.get(b"name") or values.get(b"http-equiv") or values.get(b"property") or "").strip()
        if name and not _in_comment(html, start):
            yield name, values.get(b"content", values.get(b"value", ""))


def _in_comment(html: bytes, at: int) -> bool:
    opened = html.rfind(b"<!--", max(0, at - (64 << 10)), at)
    return opened >= 0 and html.find(b"-->", opened, at) < 0
