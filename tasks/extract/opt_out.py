"""Lists of domains and URLs whose pages are left out before they are parsed: opt-outs, and blocklists of any kind.

A list is a text file, plain or .gz, UTF-8, with one entry a line; what follows `#` at the beginning of a line or after
white space is a comment.

    example.com                     the domain and all below it (*.example.com and .example.com say the same)
    .example                        a whole top-level domain: only with the dot, because a lone word is mostly a mistake
    192.0.2.7, [2001:db8::7]        an address
    example.com/people/jo           all pages at or below that address: /people/jo, /people/jo/x and /people/jo?x, and
    https://example.com/people/jo   not /people/joanna

The case of hosts does not count, nor does `www.`, the scheme, the port, a slash at the end, or whether a name is
written in Unicode or Punycode (UTS 46), a path in percent-encoding or not.

Entries are kept as sorted 64-bit hashes: 8 MB for a million. That two of 10^6 entries and 10^9 lookups share one by
chance has a probability of 5e-5.
"""

import codecs
import gzip
import ipaddress
import re
import zlib
from array import array
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Literal
from urllib.parse import unquote

import fsspec
import idna
import numpy as np
import xxhash

from tasks.errors import UserError

Kind = Literal["domain", "url"]

_COMMENT = re.compile(r"(?:^|\s)#.*")
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/?#@\s]*@)?(\[[^\]/?#\s]*\]|[^/:?#\s]*)(?::\d*)?([/?][^#]*)?(?:#.*)?",
                      re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_PLAIN = re.compile(r"(?!www\.)(?:[a-z0-9_-]{1,63}\.){1,8}[a-z][a-z0-9-]{1,62}")
_END = re.compile("[/?&]")
_MAX_NAMES = 128             # domains above a host, and prefixes of a path, that are looked up


@lru_cache(maxsize=8)
def load(files: tuple[tuple[str, str], ...]) -> np.ndarray:
    """The entries of `files`, (path or URI, sha256 of the bytes) of each, as sorted hashes (uint64). Read once a
    process.

    Raises UserError that names the file and the line of an entry that is neither a domain nor a URL.
    """
    hashes = array("Q")
    for uri, _ in files:
        for number, line in _lines(uri):
            if not _PLAIN.fullmatch(line):  # else it is a domain as we would write it, like nearly all
                line = _COMMENT.sub("", line).strip()
                if not line:
                    continue
                try:
                    line = _entry(line)
                except ValueError as error:
                    raise UserError(f"line {number} of the list {uri} is no domain or URL ({error}); mend or remove "
                                    "it") from None
            hashes.append(_hash(line))
    return np.unique(np.frombuffer(hashes, np.uint64)) if hashes else np.zeros(0, np.uint64)


def _lines(uri: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with fsspec.open(uri, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if packed else file, 1):
                yield number, line.removeprefix(codecs.BOM_UTF8).decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"line {number} of the list {uri} is not UTF-8; save the list in UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the list {uri} cannot be read after line {number} ({type(error).__name__}); check the "
                        "file") from None


def _entry(line: str) -> str:
    """Host and path of an entry as they are compared. Raises ValueError."""
    match = None if re.search(r"\s", line) else _ADDRESS.fullmatch(line)
    if match is None:
        raise ValueError("white space or signs that no address has")
    host, path = match.group(1), _path(match.group(2) or "")
    wide = host.startswith(("*.", "."))
    host = _host(host.removeprefix("*").removeprefix(".") if wide else host)
    if host.startswith("[") or re.fullmatch(r"[\d.]+", host):
        ipaddress.ip_address(host.strip("[]"))
        return host + path
    labels = host.split(".")
    if not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("no host has this name")
    if len(labels) == 1 and not (wide and not path):
        raise ValueError("a lone word; a top-level domain is written with a dot in front")
    return host + path


def _host(host: str) -> str:
    """A host in the form in which hosts are compared."""
    host = host.lower().rstrip(".")
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            pass  # of an entry: its letters are refused later; of a page: a name that no list has
    return host.removeprefix("www.") if host.count(".") > 1 else host


def _path(path: str) -> str:
    return unquote(path).rstrip("/") if path not in ("", "/") else ""


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


def matched(entries: np.ndarray, url: str) -> Kind | None:
    """What of `entries` covers a page's URL: a domain, a URL, or nothing."""
    match = _ADDRESS.match(url) if len(entries) else None
    if match is None or not match.group(1):
        return None
    host, names = _host(match.group(1)), []
    if not host.startswith("[") and not host.replace(".", "").isdigit():
        parent = host
        while "." in parent and len(names) < _MAX_NAMES:
            parent = parent[parent.index(".") + 1:]
            names.append(parent)
    names.append(host)
    domains = len(names)
    if path := _path(match.group(2) or ""):
        names += [host + path[:end.start()] for end in islice(_END.finditer(path, 1), _MAX_NAMES)]
        names.append(host + path)
    hashes = np.array([_hash(name) for name in names], np.uint64)
    places = np.searchsorted(entries, hashes)
    places[places == len(entries)] = 0
    found = np.flatnonzero(entries[places] == hashes)
    return None if not len(found) else "domain" if found[0] < domains else "url"
