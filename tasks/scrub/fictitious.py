"""Telephone numbers that ring nowhere, in the country and the form of a real one.

Some plans keep ranges for films and examples: North America 555-0100 to 555-0199 (ATIS-0300115), the United Kingdom
(Ofcom, telephone numbers for use in TV and radio drama), Australia (ACMA, phone numbers for use in TV shows, films and
creative works), France (ARCEP, décision 2018-0881), Germany (Bundesnetzagentur, Mitteilung 148/2021). In every other
country, and for other lengths, a number is drawn that the plan does not have, whose last four digits are a code under
the key by which it is known again.
"""

from collections.abc import Callable, Iterator

import phonenumbers
from phonenumbers import NumberParseException, PhoneMetadata, PhoneNumber

# Calling code -> numbers by form, # for any digit; of those of the same length, mobile ones for mobile ones.
_FIXED = {
    44: ("2079460###", "1134960###", "1144960###", "1154960###", "1164960###", "1174960###", "1184960###", "1214960###",
         "1314960###", "1414960###", "1514960###", "1614960###", "1632960###", "1914980###", "2920180###"),
    61: ("25550####", "27010####", "35550####", "37010####", "75550####", "77010####", "85550####", "87010####"),
    33: ("19900####", "26191####", "35301####", "46571####", "53649####"),
    49: ("3023125###", "4066969###", "6990009###", "8999998###"),
}
_MOBILE = {44: ("7700900###",), 61: ("491570006", "491570156", "491570157", "491570158", "491570159"),
           33: ("63998####",), 49: ("17139200##", "176040690##")}
_AREAS = {  # of the North American plan, by region; the others keep theirs
    "US": "201 202 206 212 213 214 215 216 303 305 312 313 314 404 405 406 410 412 414 415 501 502 503 504 505 512 513 "
          "515 602 603 605 612 614 615 617 619 701 702 703 713 716 718 801 802 803 804 808 816 817 818 901 904 907 916",
    "CA": "204 250 306 403 416 418 506 514 604 613 705 709 780 819 902 905",
}
Drawing = Callable[..., "Draw"]  # noqa: F821  (of tasks.scrub.pseudonyms)


def phone(value: str, regions: tuple[str, ...], drawing: Drawing) -> str | None:
    """A number that rings nowhere, with the country, the separators and the length of `value`; None for none.

    Args:
        value: the number as it is written, perhaps with an extension.
        regions: that a national number is tried in, in this order.
        drawing: texts -> numbers that look random (`tasks.scrub.pseudonyms.Draw`).
    """
    valid = _valid(value, regions)
    if not valid:
        return None
    parsed = valid[0]
    national = phonenumbers.national_significant_number(parsed)
    digits, extension = _digits(value), parsed.extension or ""
    head = digits.removesuffix(extension) if extension else digits
    if not head.endswith(national):
        return None
    draw = drawing(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))
    new = _in_range(parsed, national, draw) or _outside(parsed, national, draw, drawing)
    if new is None:
        return None
    signs = iter(head.removesuffix(national) + new + draw.digits(len(extension)))
    made = "".join(next(signs) if character in "0123456789" else character for character in value)
    # What would be taken for somebody's number, in another of the regions perhaps, would not stay.
    return made if is_fictitious(made, regions, drawing) else None


def is_fictitious(value: str, regions: tuple[str, ...], drawing: Drawing) -> bool:
    """Whether a number as it is written is one that `phone` could have made, and is nobody's in any of the regions.

    The code alone is little evidence (one number in 10,000 has it by chance), so it is asked only of numbers that no
    plan has.
    """
    if valid := _valid(value, regions):
        return all(map(_is_reserved, valid))
    readings = [parsed for parsed, _ in _parses(value, regions)]
    digits = _digits(value)
    lengths = {len(phonenumbers.national_significant_number(parsed)) for parsed in readings}
    return any(map(_is_reserved, readings)) or any(
        6 <= n <= len(digits) and _code(digits[-n:-4], drawing) == digits[-4:] for n in sorted(lengths))


def _is_reserved(parsed: PhoneNumber) -> bool:
    """Whether a number lies in a range that its country keeps for films and examples."""
    national, code = phonenumbers.national_significant_number(parsed), parsed.country_code
    if code == 1 and len(national) == 10 and national[3:8] == "55501":
        return True
    return any(_fits(national, form) for form in (*_FIXED.get(code, ()), *_MOBILE.get(code, ())))


def _readings(value: str, regions: tuple[str, ...]) -> tuple[str | None, ...]:
    return (None,) if value.lstrip("(").startswith("+") else regions


def _digits(value: str) -> str:
    return "".join(character for character in value if character in "0123456789")


def _parses(value: str, regions: tuple[str, ...]) -> Iterator[tuple[PhoneNumber, bool]]:
    """The number as each region reads it, and whether the trunk's 0 that the region writes is missing."""
    for region in _readings(value, regions):
        try:
            parsed = phonenumbers.parse(value, region)
        except NumberParseException:
            continue
        plan = PhoneMetadata.metadata_for_region(region) if region else None
        yield parsed, plan is not None and plan.national_prefix == "0" and not value.lstrip("(").startswith("0")


def _valid(value: str, regions: tuple[str, ...]) -> list[PhoneNumber]:
    """The readings that are valid; those that miss a trunk's 0 only where there is no other."""
    valid = [(parsed, bare) for parsed, bare in _parses(value, regions) if phonenumbers.is_valid_number(parsed)]
    return [parsed for parsed, bare in valid if not bare] or [parsed for parsed, _ in valid]


def _fits(digits: str, form: str) -> bool:
    return len(digits) == len(form) and all(sign in ("#", digit) for sign, digit in zip(form, digits, strict=True))


def _in_range(parsed: PhoneNumber, national: str, draw) -> str | None:
    if parsed.country_code == 1:
        areas = _AREAS.get(phonenumbers.region_code_for_number(parsed), national[:3]).split()
        return f"{draw.of(areas)}55501{draw.digits(2)}"
    mobile = phonenumbers.number_type(parsed) == phonenumbers.PhoneNumberType.MOBILE
    forms = (_MOBILE if mobile else _FIXED).get(parsed.country_code, ())
    forms = [form for form in forms if len(form) == len(national)]
    if not forms:
        return None
    return "".join(draw.digits(1) if sign == "#" else sign for sign in draw.of(forms))


def _outside(parsed: PhoneNumber, national: str, draw, drawing: Drawing) -> str | None:
    """As many digits that the country's plan does not have."""
    for _ in range(50):
        body = draw.digits(len(national) - 4)
        number = body + _code(body, drawing)
        made = PhoneNumber(country_code=parsed.country_code, national_number=int(number))
        if number[0] != "0" and not phonenumbers.is_valid_number(made):
            return number
    return None


def _code(body: str, drawing: Drawing) -> str:
    return drawing("code", body).digits(4)
