"""Telephone numbers: what Google's numbering plans call valid, written as people write numbers to call."""

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, Leniency, PhoneMetadata, PhoneNumberMatcher

GATE = r"[0-9](?:[ .()\-/\x{a0}\x{2010}-\x{2014}]{0,3}[0-9]){6}"
_GAP = r"[ .()\-/\xa0\u2010-\u2014]{0,3}"
_PHONE = re.compile(
    rf"[+(0-9](?<![\w+/#$€£¥].)(?<!\w\..)(?<![0-9][,:-].)((?:(?<=[0-9])|[+(]?[0-9])(?:{_GAP}[0-9]){{6,29}})"
    r"(?:[ ,]{0,3}(?:ext|x|extension)[.: ]{0,3}[0-9]{1,6})?(?!\w|[.,:][0-9])", re.IGNORECASE)
_INTERNATIONAL = re.compile(r"\+[1-9][0-9]{0,2}(?:[ .-]?\(?[0-9]|[0-9])")
_TRUNK = re.compile(r"0[1-9][0-9]{8,}")
_NO_DIGIT = re.compile(r"[^0-9]+")
_BLANK = re.compile(r"[ \xa0-]")
_DECIMAL = re.compile(r"[+(]*[0-9]{1,3}(?:\.[0-9]{3}){2,}|[+(]*[0-9]+\.[0-9]{1,3}")
_DATE = re.compile(r"(?:19|20)[0-9]{2}[-/.][01]?[0-9][-/.]|\(?1[4-9][0-9]{2} ?[-/–] ?(?:1[4-9]|20)[0-9]{2}$")
# A word right before a number that says what it is; the first kind says so of any number.
_LABEL = re.compile(
    r"(?<![^\W_])(?:phone|telephone|tel|fax|telefax|telefon|telefono|téléphone|teléfono|mobile|mobil|cell|cellulare|celular|"
    r"telepono|telefoon|telefone|telefonnummer|puhelin|telefonszám|τηλ|τηλέφωνο|"
    r"whatsapp|móvil|fon|тел|телефон|电话|電話|手机|هاتف|☎|📞)"
    r"(?:[ .]{0,2}(?:no|number|nr|num))?[ .]{0,2}(?: is|:|#|：)?\s{0,3}$"
    r"|\b(?:desk|office|direct|home|work|hotline)(?: line| number)?: ?$"
    r"|\b(?:call|reach|ring|dial|text)(?: (?:me|us|him|her|them))?(?: (?:at|on))? $", re.IGNORECASE)
_LABEL_BEHIND = re.compile(r"[ ,(\-–]{1,3}(?:fax|mobile|mobi|cell|office|tel|phone)\b", re.IGNORECASE)
_PHONE_WORD = re.compile(
    r"(?<![^\W_])(?:phone|tel|tele\w{1,8}|call|fax|mobile|cell|mob|whatsapp|sms|fon|handy|tél|móvil|téléphone|"
    r"cellulare|celular|cep|电话|電話|手机|тел|телефон|هاتف|☎|📞)\W{0,6}"
    r"(?:(?:no|number|nr|us|at|me|is)\W{1,3})?$", re.IGNORECASE)
_GROUP = re.compile(r"[+(]*[0-9]+")
_MAX_GROUPS = 6
FIELD = 100         # code points: a longer text is no field's value


_KINDS = ("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
          "voicemail")


@lru_cache(maxsize=256)
def _national(region: str) -> re.Pattern:
    """What the digits of a national number are in the plan of a region, and of those with the same calling code: from
    the phone library's own metadata, so that it is asked only of numbers that it will call valid."""
    metadata = PhoneMetadata.metadata_for_region(region)
    trunk = metadata.national_prefix_for_parsing or "(?!)"
    numbers = []
    for other in COUNTRY_CODE_TO_REGION_CODE[metadata.country_code]:
        plan = PhoneMetadata.metadata_for_region(other)
        numbers += [getattr(plan, kind).national_number_pattern for kind in _KINDS if getattr(plan, kind) is not None]
    numbers = [pattern for pattern in dict.fromkeys(numbers) if pattern]
    rule = metadata.national_prefix_transform_rule
    if rule:    # the trunk prefix moves digits about: the library has to see to it
        numbers.append(metadata.general_desc.national_number_pattern)
    return re.compile(rf"(?:{trunk})?(?:{'|'.join(numbers)})")


def _is_listing(number: str) -> bool:
    """Whether digits are a row of numbers, a date, or a decimal beside another number."""
    return bool(sum(len(group) == 1 for group in re.findall(r"[0-9]+", number)) > 2 or _DATE.match(number)
                or "." in number and (_BLANK.search(number) or "/" in number or _DECIMAL.fullmatch(number)))


def _is_grouped(number: str) -> bool:
    """Whether digits are grouped as people group phone numbers: bare runs of ten are identifiers more often."""
    groups = len(re.findall(r"[0-9]+", number))
    return groups >= 3 or "(" in number or (groups == 2 and number[0] == "0" and "." not in number)


def phones(text: str, regions: tuple[str, ...], context: bool = True) -> Iterator[tuple[int, int]]:
    """(start, end) in code points of the numbers that Google's numbering plans call valid: international ones, and
    national ones of `regions`; behind a label such as `Phone:` any that is written as one.

    A bare run of digits needs a word before it unless it begins with a trunk's 0, which identifiers seldom do, nothing
    but numbers stands in the text, or `context` is False. A run of digit groups may hold several numbers: at each group
    the longest that is valid is taken. The library takes 100 microseconds a try, so it sees only what the regions'
    plans let through.
    """
    alone = not context or (len(text) <= FIELD and not any(map(str.isalpha, text)))
    for run in _PHONE.finditer(text):
        if _is_labelled(text, run):
            yield run.span()
            continue
        groups = [match.span() for match in _GROUP.finditer(text, run.start(), run.end(1))]
        first = 0
        while first < len(groups):
            for last in range(min(first + _MAX_GROUPS, len(groups)), first, -1):
                start, end = groups[first][0], groups[last - 1][1]
                if last == len(groups):
                    end = run.end()     # with the extension
                if (first or last < len(groups)) and not _begins_as_phone(text[start:groups[first][1]]):
                    continue
                if span := _one_phone(text, start, groups[last - 1][1], end, regions, alone):
                    yield span
                    first = last - 1
                    break
            first += 1


def _begins_as_phone(group: str) -> bool:
    """Whether the first group says that a number begins here, with others in the row beside it."""
    return group[0] in "0(+" or len(group) == 3 or group == "1"


def _is_labelled(text: str, run: re.Match) -> bool:
    """Whether a word right beside a run of digits calls it a phone number, and nothing speaks against it."""
    number = text[run.start():run.end(1)]
    digits = sum(map(str.isdigit, number))
    if not 7 <= digits <= 15 or _is_listing(number):
        return False
    return (_LABEL.search(text, max(0, run.start() - 24), run.start()) is not None
            or _is_grouped(number) and _LABEL_BEHIND.match(text, run.end()) is not None)


def _one_phone(text: str, start: int, end: int, extended: int, regions: tuple[str, ...],
               alone: bool) -> tuple[int, int] | None:
    """Where the phone number text[start:end] lies, with an extension up to `extended`; None when it is no number."""
    if end - start < 7:
        return None
    number = text[start:end]
    digits = _NO_DIGIT.sub("", number)
    if not 7 <= len(digits) <= 17:
        return None
    if "+" in number:
        if _DECIMAL.fullmatch(number):
            return None
        tries = ("ZZ",) if number.lstrip("(").startswith("+") else ()
    else:
        tries = tuple(region for region in regions if digits.startswith("00") or _national(region).fullmatch(digits))
        if tries and (_is_listing(number) or not (
                _is_grouped(number) or alone or _TRUNK.fullmatch(number)
                or _PHONE_WORD.search(text, max(0, start - 24), start))):
            return None
    if "+" in number and end == extended and _INTERNATIONAL.match(number):
        # Nothing else is written like this, so its length has to be one of the country's, not its digits in use.
        leniency = Leniency.POSSIBLE
    else:
        leniency = Leniency.VALID
    for region in tries:
        for hit in PhoneNumberMatcher(text[start:extended], region, leniency=leniency):
            left = start + hit.start + ("(" in hit.raw_string and ")" not in hit.raw_string)
            if start + hit.end >= end:
                return left, start + hit.end
    return None


def known_region(region: str) -> bool:
    """Whether the phone library has a numbering plan for a two-letter region."""
    return region in phonenumbers.SUPPORTED_REGIONS
