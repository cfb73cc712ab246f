"""What a page says about its own use: opt-outs and licences, found without parsing it again.

Sources: robots meta elements and X-Robots-Tag (https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag),
noai and noimageai (DeviantArt, 2022), the TDM Reservation Protocol (https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/),
rel=license (https://microformats.org/wiki/rel-license) and Creative Commons' licence addresses.
"""

import re
from collections.abc import Iterator

SIGNALS = ("noai", "noimageai", "noindex", "nosnippet", "noarchive", "none", "notrain")
_HEAD = 64 << 10             # bytes in which meta elements are looked for, as lower case
_TOKEN = re.compile(rb"[a-z-]+")
_ATTRIBUTE = re.compile(rb"""\b(name|http-equiv|content)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""")
_CC = re.compile(rb"creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?)/(\d\.\d)|publicdomain/(zero|mark)/)")
_PUBLIC = {b"zero": b"cc0-1.0", b"mark": b"pdm-1.0"}
_LICENSE = re.compile(rb"""rel=["']?[a-zA-Z ]{0,64}?\blicense\b""")
_ROBOTS = {b"robots", b"x-robots-tag", b"googlebot", b"gptbot", b"ccbot", b"google-extended"}
_NEEDLES = (b"robots", b"tdm-reservation", b"googlebot", b"gptbot", b"ccbot", b"google-extended")
_SIGNALS = {signal.encode() for signal in SIGNALS}


def rights_signals(html: bytes, headers: list[tuple[str, str]]) -> list[str]:
    """The signals of a page, sorted: those of SIGNALS, tdm-reservation, license, cc-by-4.0 and the like.

    Args:
        html: the page in UTF-8 (or any encoding that ASCII reads).
        headers: of its HTTP response, names in lower case.

    A Creative Commons address anywhere in the page counts as its licence: pages rarely mark it better.
    """
    found: set[bytes] = set()
    for name, value in headers:
        if name == "x-robots-tag":
            found |= _SIGNALS.intersection(_TOKEN.findall(value.lower().encode("utf-8", "replace")))
        elif name == "tdm-reservation" and value.strip() == "1":
            found.add(b"tdm-reservation")
    head = html[:_HEAD].lower()
    for meta in _metas(head):
        values = {a[0]: a[1] or a[2] or a[3] for a in _ATTRIBUTE.findall(meta)}
        name, content = values.get(b"name", values.get(b"http-equiv", b"")), values.get(b"content", b"")
        if name in _ROBOTS:
            found |= _SIGNALS.intersection(_TOKEN.findall(content))
        elif name == b"tdm-reservation" and content.strip() == b"1":
            found.add(b"tdm-reservation")
    if b"creativecommons.org/" in html:
        found |= {b"cc-" + licence + b"-" + version if licence else _PUBLIC[public]
                  for licence, version, public in _CC.findall(html)}
    if b"license" in html and _LICENSE.search(html):
        found.add(b"license")
    return sorted(signal.decode() for signal in found)


def _metas(head: bytes) -> Iterator[bytes]:
    """The meta elements that hold a name of interest: to look for names is much faster than at every element."""
    for needle in _NEEDLES:
        at = head.find(needle)
        while at >= 0:
            start, end = head.rfind(b"<", max(0, at - 1024), at), head.find(b">", at, at + 1024)
            if end < 0:
                end = at + len(needle)
            elif head.startswith(b"<meta", start) and start >= 0:
                yield head[start:end]
            at = head.find(needle, end)
