"""What finds personal data by the form it has in running text.

A finder yields (type, start, end) in code points. Beside it stands a gate: a pattern for RE2 (Arrow's engine, 400
MB/s and more over a whole column) that every text with a find matches, so that a text without an @ never becomes a
Python string. No finder takes more than linear time: its patterns start at a boundary, and their repetitions
are bounded. Numbers with a shape of their own are found by `tasks.scrub.numbered`.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tasks.scrub import checks, crypto, phones, postal, secrets
from tasks.scrub.context import Names

Found = Iterator[tuple[str, int, int]]


class Options(NamedTuple):
    """What decides what is found in a text."""

    types: frozenset[str]
    regions: tuple[str, ...] = ()       # whose national phone numbers are looked for
    every_address: bool = False         # also IP addresses that name nobody
    context: bool = True                # little evidence needs a word beside it


class Finder(NamedTuple):
    types: frozenset[str]
    gate: str                                   # RE2
    find: Callable[[str, Options], Found]
    rare: bool = True                           # few texts have it


# RFC 5321's dot-atom without the signs that no mail provider hands out; internationalised letters (RFC 6531) count.
_LOCAL_REVERSED = re.compile(r"[\w.+%'-]{0,254}[^\W_]")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(xn--[a-zA-Z0-9-]{2,59}|[^\W\d_]{2,24})(?![^\W_])")
# name@2x.png is an image for a dense screen. None of these is a top-level domain.
_FILE_ENDINGS = frozenset("bmp css gif htm html ico jpeg jpg js json pdf php png svg tiff webp xhtml xml".split())


def emails(text: str, options: Options) -> Found:
    """Addresses with a dotted domain, outward from every @."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_REVERSED.match(text[max(0, at - 255):at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if domain and domain.group(1).lower() not in _FILE_ENDINGS:
            yield "EMAIL", at - local.end(), domain.end()
        at = text.find("@", at + 1)


# These patterns begin with a character and look behind it, not before it: the engine then skips to such characters.
_IPV4 = re.compile(r"[0-9](?<![\w.].)(?<![A-Za-z]-.)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.\w|-[0-9])")
_IPV6 = re.compile(r"[0-9A-Fa-f:](?<![\w:.].)[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{0,34}(?:(?:\.[0-9]{1,3}){3})?(?![\w:]|\.\w)")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
# What says that four dotted numbers are a version, a section or an object identifier ...
_NUMBERING = Names(["v|ver|version~|release~|rev|revision~|build~|firmware|driver~|update~|patch~|python|chapter~|"
                    "section~|sect|sec|clause~|part|article~|art|table~|figure~|fig|appendix|oid|id|edition|upgrade~|"
                    "changelog|player|flash|java|jre|jdk|kernel|library|package~|plugin|chrome|firefox|opera|safari|"
                    "kapitel|abschnitt|chapitre|capítulo|sección|rfc|dll|exe|msi|setup|installer|ios|android|windows"])
# ... and what says that they are an address.
_ADDRESS = Names(["ip~|ipv4|address~|addr|adresse~|dirección|host~|server~|dns|ping~|gateway~|router~|subnet~|proxy~|"
                  "client~|remote~|localhost|port|ssh|ftp|http|https|tcp|udp|netmask|nameserver~|traceroute|user|"
                  "talk|contributions|blocked|ban|banned|login~|log|logged|src|dst|from|visitor~|anonymous"])
_SIGN = re.compile(r"(?:§|==|>=|<=|~=)[\s.:=#(]{0,3}$")
_HEADING = re.compile(r"[.)]?[ \t\xa0]+[^\W\d]")
_PORT = re.compile(r":[0-9]{2,5}\b|/[0-9]{1,2}\b|\]")


def addresses(text: str, options: Options) -> Found:
    """IPv4 and IPv6 addresses: those that route on the public internet, or every one.

    Four dotted numbers after a word such as `version` or `section` are none; and where no word speaks of addresses, it
    takes more digits than numbering has (nine, or two numbers of three digits) to be one.
    """
    for match in _IPV4.finditer(text):
        start, end = match.span()
        value = match.group()
        if not checks.is_address(value) or not (options.every_address or checks.is_public_ip(value)):
            continue
        before = text[max(0, start - 40):start]
        line = before.rpartition("\n")[2]
        if _SIGN.search(line) or _NUMBERING.within(" ".join(line.split()[-3:])):
            continue
        if not line.strip() and len(value) < 12:
            if _HEADING.match(text, end):
                continue
            line = before.rstrip().rpartition("\n")[2]
        parts = value.split(".")
        likely = len(value) >= 12 or sum(len(part) == 3 for part in parts) >= 2
        if (likely or not options.context or _ADDRESS.within(line) or _PORT.match(text, end)
                or text[start - 1:start] in "/[@|" and start or not any(map(str.isalpha, text[:100]))):
            yield "IP", start, end
    end = 0
    for hint in _COLONS.finditer(text):
        start = hint.start()
        while start > end and hint.start() - start < 5 and text[start - 1] in _HEXADECIMAL:
            start -= 1
        match = _IPV6.match(text, start) if hint.start() >= end else None
        if match is None or "::" not in match.group() and match.group().count(":") < 6:
            continue
        value, end = match.group(), match.end()
        if options.every_address:
            # `::` is also an operator: it is an address where no other sign touches it.
            if checks.is_address(value) and (":" in value.strip(":") or _stands(text, match)):
                yield "IP", match.start(), match.end()
        elif checks.is_public_ip(value):
            yield "IP", match.start(), match.end()


def _stands(text: str, match: re.Match) -> bool:
    """Whether no sign but brackets and punctuation touches the match."""
    around = text[match.start() - 1:match.start()] + text[match.end():match.end() + 1]
    return not around.strip(" =[](),.'\"\n")


_MAC = re.compile(r"[0-9A-Fa-f](?<![\w:.-].)(?:[0-9A-Fa-f]([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}"
                  r"|[0-9A-Fa-f]{3}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4})(?![\w:-]|\.\w)")


def hardware_addresses(text: str, options: Options) -> Found:
    """MAC addresses in the three ways of IEEE 802 and Cisco, but for those of nobody: all ones, all zeros, multicast
    of protocols and the documentation range 00-00-5E-00-53 (RFC 7042)."""
    for match in _MAC.finditer(text):
        digits = re.sub(r"[:.-]", "", match.group()).lower()
        if digits not in ("0" * 12, "f" * 12) and not digits.startswith("00005e0053"):
            yield "MAC_ADDRESS", match.start(), match.end()


_IBAN = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{2}[0-9]{2}(?:[ \xa0-]?[A-Z0-9]){11,29}|[a-z]{2}[0-9]{2}[a-z0-9]{11,29})")


def ibans(text: str, options: Options) -> Found:
    """International bank account numbers: in capitals with or without groups, or in small letters in one piece."""
    for match in _IBAN.finditer(text):
        length = checks.IBAN_LENGTHS.get(match.group()[:2].upper(), 0)
        places = [place for place in range(match.start(), match.end()) if text[place].isalnum()][:length]
        if len(places) < length or not length:
            continue
        end = places[-1] + 1
        if not text[end:end + 1].isalnum() and checks.is_iban("".join(text[place] for place in places).upper()):
            yield "IBAN", match.start(), end


def telephones(text: str, options: Options) -> Found:
    """Phone numbers of `tasks.scrub.phones`."""
    return (("PHONE", *span) for span in phones.phones(text, options.regions, options.context))


def wallets(text: str, options: Options) -> Found:
    """Addresses of cryptocurrencies."""
    return (("CRYPTO", *span) for span in crypto.wallets(text))


def tokens(text: str, options: Options) -> Found:
    """Keys with an issuer's prefix, and private keys."""
    yield from secrets.tokens(text, options.types)
    if "PRIVATE_KEY" in options.types:
        yield from secrets.private_keys(text)


def assignments(text: str, options: Options) -> Found:
    """Values given to names that speak of secrets."""
    return secrets.assignments(text)


def postal_addresses(text: str, options: Options) -> Found:
    """Street addresses and postcodes of the United States and the United Kingdom."""
    return postal.addresses(text, options.types)


_PREFIXES = "|".join(re.escape(literal) for literals, _ in secrets.TOKENS.values() for literal in literals)
FINDERS = (
    Finder(frozenset({"EMAIL"}), r"@", emails, rare=False),
    Finder(frozenset({"IP"}), r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:", addresses),
    Finder(frozenset({"MAC_ADDRESS"}), r"(?:[0-9A-Fa-f]{2}[:\-]){5}[0-9A-Fa-f]|(?:[0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4}",
           hardware_addresses),
    Finder(frozenset({"IBAN"}),
           r"[A-Z]{2}[0-9]{2}(?:[ \x{a0}\-]?[A-Z0-9]){11}|(?:^|[^A-Za-z0-9])[a-z]{2}[0-9]{2}[a-z0-9]{11}", ibans),
    Finder(frozenset({"PHONE"}), phones.GATE, telephones, rare=False),
    Finder(frozenset({"CRYPTO"}), crypto.GATE, wallets),
    Finder(frozenset(secrets.TOKENS) | {"PRIVATE_KEY"}, _PREFIXES.replace(r"\-", "-") + "|PRIVATE KEY", tokens),
    Finder(frozenset({"SECRET"}), secrets.NAMED_GATE, assignments),
    Finder(frozenset(postal.TYPES), postal.GATE, postal_addresses, rare=False),
)
