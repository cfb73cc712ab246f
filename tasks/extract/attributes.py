"""Attributes of a single element, read from the page's bytes: for what is asked of few elements only."""

import re

_NAME = re.compile(rb"<[^\s/>]*")
_ATTRIBUTE = re.compile(rb"""[\s/]+([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*)))?""")
_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,9})")
_MOST = 4096                 # bytes of a tag that are looked at


def attributes(html: bytes, at: int) -> dict[str, str]:
    """The attributes of the tag at html[at], names in lower case; of a name that comes twice the first."""
    found: dict[str, str] = {}
    last = _NAME.match(html, at, at + _MOST)
    while last and (last := _ATTRIBUTE.match(html, last.end(), at + _MOST)):
        name, *values = last.groups(b"")
        found.setdefault(name.decode("utf-8", "replace").lower(), b"".join(values).decode("utf-8", "replace"))
    return found


def mentions(html: bytes, at: int, *words: bytes) -> bool:
    """Whether the tag at html[at] holds one of `words`: a sieve before `attributes`, which costs more."""
    tag = html[at:html.find(b">", at, at + _MOST)].lower()
    return any(word in tag for word in words)


def number(value: str | None) -> int | None:
    """The integer that an attribute begins with, as HTML reads integers (2.3.4.1); None without one."""
    match = _NUMBER.match(value or "")
    return int(match[1]) if match else None
