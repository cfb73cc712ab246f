"""Checksums and registries that tell a real number from digits that only look like one."""

import ipaddress

# Issuer prefixes (first digits, inclusive range) and lengths of payment cards: ISO/IEC 7812 and the issuers' published
# ranges as collected in https://en.wikipedia.org/wiki/Payment_card_number. UATP (a leading 1) is not here: it would
# add one tenth of all 15-digit numbers in 1... and next to no cards.
_CARDS = [
    ("4", "4", {13, 16, 19}),                                                               # Visa
    ("51", "55", {16}), ("2221", "2720", {16}),                                             # Mastercard
    ("34", "34", {15}), ("37", "37", {15}),                                                 # American Express
    ("300", "305", {14}), ("3095", "3095", {14}), ("36", "36", {14}), ("38", "39", {14}),   # Diners Club
    ("6011", "6011", {16, 19}), ("644", "659", {16, 19}),                                   # Discover
    ("622126", "622925", {16, 17, 18, 19}), ("62", "62", {16, 17, 18, 19}),                 # UnionPay
    ("3528", "3589", {16, 19}), ("1800", "1800", {15}), ("2131", "2131", {15}),             # JCB
    ("5018", "5018", {12, 13, 14, 15, 16, 19}), ("5020", "5020", {12, 13, 14, 15, 16, 19}),  # Maestro
    ("5038", "5038", {12, 13, 14, 15, 16, 19}), ("5893", "5893", {12, 13, 14, 15, 16, 19}),
    ("6304", "6304", {12, 13, 14, 15, 16, 19}), ("6759", "6763", {12, 13, 14, 15, 16, 19}),
    ("2200", "2204", {16, 17, 18, 19}), ("508", "508", {16}), ("8600", "8600", {16}), ("9792", "9792", {16}),
    ("9860", "9860", {16}),                                         # Mir, RuPay, Uzcard, Troy, Humo
]

# Length of an IBAN by country: SWIFT IBAN Registry (ISO 13616), release 99.
IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")   # the only space handed out so far: IANA IPv6 registry, RFC 4291


def luhn(digits: str) -> bool:
    """Whether a string of ASCII digits passes the Luhn check (ISO/IEC 7812-1, annex B)."""
    values = [ord(digit) - 48 for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether ASCII digits are a payment card number: known issuer prefix, its length, Luhn."""
    known = any(low <= digits[:len(low)] <= high and len(digits) in lengths for low, high, lengths in _CARDS)
    return known and luhn(digits)


def is_iban(characters: str) -> bool:
    """Whether upper-case letters and digits without separators are an IBAN: country's length and mod 97 (ISO 13616)."""
    if len(characters) != IBAN_LENGTHS.get(characters[:2]):
        return False
    return int("".join(str(int(character, 36)) for character in characters[4:] + characters[:4])) % 97 == 1


def is_address(text: str) -> bool:
    """Whether text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_public_ip(text: str) -> bool:
    """Whether text is an address that routes on the public internet (IANA special-purpose registries, by `ipaddress`).

    Private, loopback, link-local, multicast and documentation addresses name nobody and are False, and so is a
    shortened IPv6 address outside the global unicast space 2000::/3, where words such as `a::b` would be found.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_multicast or not address.is_global:
        return False
    return address.version == 4 or address in _GLOBAL_UNICAST or "::" not in text
