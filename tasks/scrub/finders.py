"""What finds each type of personal data in a text.

A finder yields (type, start, end) in code points. Beside it stands a gate: a pattern for RE2 (Arrow's engine, 400
MB/s and more over a whole column) that every text with a find matches, so that a text without digits or an @ never
becomes a Python string. No finder takes more than linear time: its patterns start at a boundary, and their repetitions
are bounded.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import phonenumbers
from phonenumbers import Leniency, PhoneMetadata, PhoneNumberMatcher

from tasks.scrub import checks, secrets

Found = Iterator[tuple[str, int, int]]


class Finder(NamedTuple):
    types: frozenset[str]
    gate: str                                                   # RE2
    find: Callable[[str, frozenset[str], tuple[str, ...]], Found]  # text, types wanted, regions


# RFC 5321's dot-atom without the signs that no mail provider hands out; internationalised letters (RFC 6531) count.
_LOCAL_REVERSED = re.compile(r"[\w.+%'-]{0,254}[^\W_]")
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(xn--[a-zA-Z0-9-]{2,59}|[^\W\d_]{2,24})(?![^\W_])")
# name@2x.png is an image for a dense screen. None of these is a top-level domain.
_FILE_ENDINGS = frozenset("bmp css gif htm html ico jpeg jpg js json pdf php png svg tiff webp xhtml xml".split())


def emails(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    """Addresses with a dotted domain, outward from every @."""
    at = text.find("@")
    while at >= 0:
        local = _LOCAL_REVERSED.match(text[max(0, at - 255):at][::-1])
        domain = _DOMAIN.match(text, at + 1) if local else None
        if domain and domain.group(1).lower() not in _FILE_ENDINGS:
            yield "EMAIL", at - local.end(), domain.end()
        at = text.find("@", at + 1)


# These patterns begin with a character and look behind it, not before it: the engine then skips to such characters.
_IPV4 = re.compile(r"[0-9](?<![\w.].)(?<![A-Za-z]-.)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.\w)")
_IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f:]{1,34}(?:(?:\.[0-9]{1,3}){3})?(?![\w:])")
# Words that say that four dotted numbers are not an address but a version, a section or an object identifier.
_NOT_AN_ADDRESS = re.compile(
    r"(?:\bv|\b(?:ver|versions?|releases?|rev|revision|build|firmware|driver|update|patch|python|chapter|section|sect?|"
    r"clause|part|article|table|figure|fig|appendix|oid|id)\b|§|==|>=|<=|~=)[\s.:=#(]{0,3}$", re.IGNORECASE)


def addresses(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    """Public IPv4 and IPv6 addresses; four dotted numbers after a word such as `version` or `section` are none."""
    for match in _IPV4.finditer(text):
        start, end = match.span()
        if checks.is_public_ip(match.group()) and not _NOT_AN_ADDRESS.search(text, max(0, start - 16), start):
            yield "IP", start, end
    for match in _IPV6.finditer(text):
        if checks.is_public_ip(match.group()):
            yield "IP", match.start(), match.end()


_CARD = re.compile(
    r"[0-9](?<![\w.].)(?<![0-9][,-].)(?:[0-9]{11,18}|[0-9]{3}([ \xa0-])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{3}([ \xa0-])[0-9]{6}\2[0-9]{4,5})(?!\w|[.,-][0-9])")


def cards(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    """Payment card numbers, in one piece or in the groups that are printed on cards."""
    for match in _CARD.finditer(text):
        if checks.is_card("".join(filter(str.isdigit, match.group()))):
            yield "CARD", match.start(), match.end()


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \xa0-]?[A-Z0-9]){11,29}")


def ibans(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    """International bank account numbers in capitals, with or without groups."""
    for match in _IBAN.finditer(text):
        length = checks.IBAN_LENGTHS.get(text[match.start():match.start() + 2], 0)
        places = [place for place in range(match.start(), match.end()) if text[place].isalnum()][:length]
        if len(places) < length or not length:
            continue
        end = places[-1] + 1
        if not text[end:end + 1].isalnum() and checks.is_iban("".join(text[place] for place in places)):
            yield "IBAN", match.start(), end


_GAP = r"[ .()\-/\xa0\u2010-\u2014]{0,3}"
_PHONE = re.compile(
    rf"[+(0-9](?<![\w+/#$€£¥].)(?<!\w\..)(?<![0-9][,:-].)((?:(?<=[0-9])|[+(]?[0-9])(?:{_GAP}[0-9]){{6,29}})"
    r"(?:[ ,]{0,3}(?:ext|x|extension)[.: ]{0,3}[0-9]{1,6})?(?!\w|[.,:][0-9])", re.IGNORECASE)
_BLANK = re.compile(r"[ \xa0-]")
_DATE = re.compile(r"(?:19|20)[0-9]{2}[-/.][01]?[0-9][-/.]")
_PHONE_WORD = re.compile(
    r"(?:phone|tel|tele\w{1,8}|call|fax|mobile|cell|mob|whatsapp|sms|fon|handy|tél|móvil|téléphone|"
    r"cellulare|celular|cep|电话|電話|手机|тел|телефон|هاتف|☎|📞)\W{0,6}"
    r"(?:(?:no|number|nr|us|at|me|is)\W{1,3})?$", re.IGNORECASE)
_GROUP = re.compile(r"[+(]*[0-9]+")
_MAX_GROUPS = 6


@lru_cache(maxsize=256)
def _national(region: str) -> re.Pattern:
    """What the digits of a national number of a region look like, from the phone library's own metadata."""
    metadata = PhoneMetadata.metadata_for_region(region)
    trunk = metadata.national_prefix_for_parsing or "(?!)"
    return re.compile(rf"(?:{trunk})?(?:{metadata.general_desc.national_number_pattern})")


def _is_written_as_phone(text: str, start: int, number: str) -> bool:
    """Whether digits that a national plan allows are grouped as people group them, or a word before them says so.

    Bare runs of ten digits are identifiers more often than numbers to call.
    """
    groups = re.findall(r"[0-9]+", number)
    if sum(len(group) == 1 for group in groups) > 2 or _DATE.match(number) or ("." in number and _BLANK.search(number)):
        return False        # a row of numbers, a date, a decimal beside another number
    grouped = len(groups) >= 3 or "(" in number or (len(groups) == 2 and number[0] == "0" and "." not in number)
    return grouped or _PHONE_WORD.search(text, max(0, start - 24), start) is not None


def phones(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    """Numbers that Google's numbering plans call valid: international ones, and national ones of `regions`.

    A run of digit groups may hold several numbers: at each group the longest that is valid is taken. The library takes
    100 microseconds a try, so it sees only what the regions' plans let through.
    """
    for run in _PHONE.finditer(text):
        groups = [match.span() for match in _GROUP.finditer(text, run.start(), run.end(1))]
        first = 0
        while first < len(groups):
            for last in range(min(first + _MAX_GROUPS, len(groups)), first, -1):
                start, end = groups[first][0], groups[last - 1][1]
                if last == len(groups):
                    end = run.end()     # with the extension
                if span := _one_phone(text, start, groups[last - 1][1], end, regions):
                    yield "PHONE", *span
                    first = last - 1
                    break
            first += 1


def _one_phone(text: str, start: int, end: int, extended: int, regions: tuple[str, ...]) -> tuple[int, int] | None:
    """Where the phone number text[start:end] lies, with an extension up to `extended`; None when it is no number."""
    number = text[start:end]
    digits = "".join(filter(str.isdigit, number))
    if not 7 <= len(digits) <= 17:
        return None
    if "+" in number:
        tries = ("ZZ",) if number.lstrip("(").startswith("+") else ()
    else:
        tries = tuple(region for region in regions if digits.startswith("00") or _national(region).fullmatch(digits))
        if tries and not _is_written_as_phone(text, start, number):
            return None
    for region in tries:
        for hit in PhoneNumberMatcher(text[start:extended], region, leniency=Leniency.VALID):
            left = start + hit.start + ("(" in hit.raw_string and ")" not in hit.raw_string)
            if start + hit.end >= end:
                return left, start + hit.end
    return None


def _tokens(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    yield from secrets.tokens(text, types)
    if "PRIVATE_KEY" in types:
        yield from secrets.private_keys(text)


def _assignments(text: str, types: frozenset[str], regions: tuple[str, ...]) -> Found:
    return secrets.assignments(text)


def known_region(region: str) -> bool:
    """Whether the phone library has a numbering plan for a two-letter region."""
    return region in phonenumbers.SUPPORTED_REGIONS


_PREFIXES = "|".join(re.escape(literal) for literals, _ in secrets.TOKENS.values() for literal in literals)
FINDERS = (
    Finder(frozenset({"EMAIL"}), r"@", emails),
    Finder(frozenset({"IP"}), r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]", addresses),
    Finder(frozenset({"CARD"}), r"[0-9]{12}|[0-9]{4}[ \x{a0}\-][0-9]{4}[ \x{a0}\-]?[0-9]{2}", cards),
    Finder(frozenset({"IBAN"}), r"[A-Z]{2}[0-9]{2}(?:[ \x{a0}\-]?[A-Z0-9]){11}", ibans),
    Finder(frozenset({"PHONE"}), r"[0-9](?:[ .()\-/\x{a0}\x{2010}-\x{2014}]{0,3}[0-9]){6}", phones),
    Finder(frozenset(secrets.TOKENS) | {"PRIVATE_KEY"}, _PREFIXES.replace(r"\-", "-") + "|PRIVATE KEY", _tokens),
    Finder(frozenset({"SECRET"}),
           r"(?i:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)[A-Za-z0-9_-]{0,20}[\"']?\s{0,5}[:=]",
           _assignments),
)
# Where two finds of the same length overlap, the earlier type here has it.
TYPES = ("PRIVATE_KEY", "JWT", "GITHUB_TOKEN", "AWS_KEY", "GOOGLE_KEY", "SLACK_TOKEN", "SECRET",
         "IBAN", "CARD", "EMAIL", "IP", "PHONE")
