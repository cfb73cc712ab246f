"""Fakes in the place of values: of the same type and form, belonging to nobody, the same for the same value and key.

A fake is drawn from HMAC-SHA256 (RFC 2104) of the type and the normalised value under a key that only its holder has:
it does not depend on the document, the process or the order of work, and who has no key can neither go back nor test a
guess. What is drawn lies where nothing real is:

    EMAIL           example.com, .net and .org (RFC 2606); the name ends with a code of its own under the key
    IP              192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24 (RFC 5737), 2001:db8::/32 (RFC 3849)
    MAC_ADDRESS     00-00-5E-00-53-xx (RFC 7042)
    PHONE           `tasks.scrub.fictitious`
    CARD            9999...: 9 is for national bodies, 999 a country that ISO 3166-1 leaves to users; Luhn holds
    IBAN            bank code of zeros (X in the place of letters), mod 97 holds; a placeholder for Brazil, where that
                    is Banco do Brasil's, and for Djibouti and Mauritania, whose codes may begin with four zeros
    US_SSN 666..., US_ITIN with a group below 50, UK_NHS 999..., UK_NINO QQ, CA_SIN 0..., IN_AADHAAR 00... and 1...,
    DE_TAX_ID 00..., FI_PERSONAL_IDENTITY_CODE 900 to 999: never issued, or kept for tests by the issuers; checks hold

Every other type, credentials above all, keeps its placeholder. A value of another type than it was found as elsewhere
gets another fake, and a fake that can be taken for another type makes way for that type's placeholder. Fakes of a kind
are fewer than values can be (254 * 3 IPv4 addresses, 100 phone numbers an area code): different values may share one.
"""

import hashlib
import hmac
import ipaddress
import unicodedata
from collections.abc import Callable

import fsspec

from tasks.errors import UserError
from tasks.scrub import check_digits, checks, fictitious

MIN_KEY = 16    # bytes
_CONSONANTS, _VOWELS, _CODE = "bdfgklmnprstvz", "aeiou", "abcdefghijklmnopqrstuvwxyz234567"
_IPV4 = tuple(ipaddress.IPv4Network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"))
_IPV6 = ipaddress.IPv6Network("2001:db8::/32")


def read_key(uri: str) -> bytes:
    """The key in a file. Raises UserError when it cannot be read or is shorter than 16 bytes."""
    try:
        with fsspec.open(uri, "rb") as file:
            key = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot read {uri}, which scrub.key_file names ({type(error).__name__}); "
                        f"check the path, or set scrub.replacement to placeholder") from None
    if len(key) < MIN_KEY:
        raise UserError(f"{uri}, which scrub.key_file names, holds {len(key)} bytes; a key has {MIN_KEY} random bytes "
                        f"or more: head -c 32 /dev/urandom > {uri}")
    return key


class Draw:
    """Numbers that look random and follow from a key and a text."""

    def __init__(self, key: bytes, *parts: str):
        seed = hmac.new(key, "\0".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        self._bits, self._seed = int.from_bytes(seed, "big"), seed

    def below(self, n: int) -> int:
        """A number from 0 to n - 1, n up to 2**64; uniform to one part in 2**64."""
        if self._bits.bit_length() < 130:
            self._seed = hashlib.sha256(self._seed).digest()
            self._bits = self._bits << 256 | int.from_bytes(self._seed, "big")
        self._bits, number = self._bits >> 128, self._bits & (1 << 128) - 1
        return number % n

    def digits(self, n: int) -> str:
        return "".join(str(self.below(10)) for _ in range(n))

    def of(self, choices):
        return choices[self.below(len(choices))]


class Pseudonyms:
    """The fakes of a key (bytes)."""

    def __init__(self, key: bytes):
        self._key = key

    def __repr__(self) -> str:  # the key is in no message
        return "Pseudonyms(...)"

    def fake(self, kind: str, value: str, regions: tuple[str, ...] = ()) -> str | None:
        """What stands in a value's place; None for a placeholder. `regions` read national phone numbers."""
        if kind == "EMAIL":
            return self._email(value)
        if kind == "IP":
            return self._address(value)
        if kind == "MAC_ADDRESS":
            draw = Draw(self._key, kind, _alphanumeric(value).lower())
            made = f"00005e0053{draw.below(256):02x}"
            return _laid_over(value, made if value == value.lower() else made.upper())
        if kind == "PHONE":
            return fictitious.phone(value, regions, lambda *parts: Draw(self._key, kind, *parts))
        normalised = _alphanumeric(value).upper()
        made = _MADE[kind](normalised, Draw(self._key, kind, normalised)) if kind in _MADE else None
        if made is None or len(made) != len(normalised):
            return None
        return _laid_over(value, made.lower() if value == value.lower() else made)

    def is_fake(self, kind: str, value: str, regions: tuple[str, ...] = ()) -> bool:
        """Whether a value is one that `fake` could have put there, and so names nobody."""
        if kind == "EMAIL":
            local, _, domain = value.partition("@")
            body, _, code = local.partition(".")
            return domain in _DOMAINS and len(code) == 6 and code == self._code(body)
        if kind == "IP":
            return _documented(value)
        if kind == "MAC_ADDRESS":
            return _alphanumeric(value).lower().startswith("00005e0053")
        if kind == "PHONE":
            return fictitious.is_fictitious(value, regions, lambda *parts: Draw(self._key, kind, *parts))
        normalised = _alphanumeric(value).upper()
        return kind in _FAKE and _FAKE[kind](normalised)

    def _email(self, value: str) -> str:
        local, _, domain = unicodedata.normalize("NFC", value).rpartition("@")
        draw = Draw(self._key, "EMAIL", f"{local}@{domain}".casefold())
        body = "".join(draw.of(_CONSONANTS) + draw.of(_VOWELS) for _ in range(5))
        return f"{body}.{self._code(body)}@{draw.of(_DOMAINS)}"

    def _code(self, body: str) -> str:
        draw = Draw(self._key, "code", body)
        return "".join(draw.of(_CODE) for _ in range(6))

    def _address(self, value: str) -> str:
        address = ipaddress.ip_address(value)
        draw = Draw(self._key, "IP", address.compressed)
        if address.version == 4:
            return str(draw.of(_IPV4)[1 + draw.below(254)])
        return str(_IPV6[(draw.below(1 << 32) << 64) + draw.below(1 << 64)])


_DOMAINS = ("example.com", "example.net", "example.org")


def _alphanumeric(value: str) -> str:
    return "".join(filter(str.isalnum, value))


def _laid_over(value: str, signs: str) -> str:
    """The value with its letters and digits replaced, and what separates them kept."""
    new = iter(signs)
    return "".join(next(new) if character.isalnum() else character for character in value)


def _documented(value: str) -> bool:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    return address in _IPV6 if address.version == 6 else any(address in net for net in _IPV4)


def _last_digit(body: str, valid: Callable[[str], bool], signs: str = "0123456789") -> str | None:
    """The body with the check digit or letter that makes it valid; None when there is none."""
    return next((body + sign for sign in signs if valid(body + sign)), None)


def _card(value: str, draw: Draw) -> str | None:
    return _last_digit("9999" + draw.digits(len(value) - 5), checks.luhn)


# Banco do Brasil is 00000000; codes of five digits are small numbers there (00010, 00020: SWIFT IBAN Registry).
_ZEROS_ARE_BANKS = ("BR", "DJ", "MR")


def _iban(value: str, draw: Draw) -> str | None:
    if value.startswith(_ZEROS_ARE_BANKS):
        return None
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    body = "".join(("X" if sign.isalpha() else "0") if place < 4 else
                   draw.of(letters) if sign.isalpha() else draw.digits(1) for place, sign in enumerate(value[4:]))
    rest = int("".join(str(int(sign, 36)) for sign in body + value[:2] + "00")) % 97
    return f"{value[:2]}{98 - rest:02d}{body}"


def _with_check(first: str, valid: Callable[[str], bool]) -> Callable[[str, Draw], str | None]:
    """Makes numbers that begin as none that is issued does, with the issuer's check digit."""
    def made(value: str, draw: Draw) -> str | None:
        for _ in range(50):     # some bodies have no check digit
            head = draw.of(first.split())
            if found := _last_digit(head + draw.digits(len(value) - 1 - len(head)), valid):
                return found
        return None
    return made


def _ssn(value: str, draw: Draw) -> str:
    return f"666{1 + draw.below(99):02d}{1 + draw.below(9999):04d}"


def _itin(value: str, draw: Draw) -> str:
    return f"9{draw.digits(2)}{1 + draw.below(49):02d}{1 + draw.below(9999):04d}"


def _nino(value: str, draw: Draw) -> str:
    return "QQ" + draw.digits(6) + draw.of("ABCD")


def _hetu(value: str, draw: Draw) -> str | None:
    if len(value) == 11:
        head = f"{1 + draw.below(28):02d}{1 + draw.below(12):02d}{draw.digits(2)}{value[6]}9{draw.digits(2)}"
    else:
        head = f"{1 + draw.below(28):02d}{1 + draw.below(12):02d}{draw.digits(2)}9{draw.digits(2)}"
    return _last_digit(head, check_digits.hetu, check_digits.HETU_SIGNS)


# Of issued numbers the first digit is 1 to 9, so the checks of these ask for what theirs do not.
_MADE: dict[str, Callable[[str, Draw], str | None]] = {
    "CARD": _card, "IBAN": _iban, "US_SSN": _ssn, "US_ITIN": _itin, "UK_NINO": _nino,
    "FI_PERSONAL_IDENTITY_CODE": _hetu,
    "UK_NHS": _with_check("999", check_digits.nhs),
    "CA_SIN": _with_check("0", checks.luhn),
    "IN_AADHAAR": _with_check("00 1", lambda value: check_digits.library("verhoeff", value)),
    "DE_TAX_ID": _with_check("00", check_digits.mod_11_10),
}
_FAKE: dict[str, Callable[[str], bool]] = {
    "CARD": lambda value: value.startswith("9999") and checks.luhn(value),
    "IBAN": lambda value: not value.startswith(_ZEROS_ARE_BANKS) and set(value[4:8]) <= {"0", "X"},
    "UK_NHS": lambda value: value.startswith("999"),
    "FI_PERSONAL_IDENTITY_CODE": lambda value: value[-4] == "9",
}
