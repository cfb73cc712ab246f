"""Check digits of identifiers that python-stdnum does not have, or has otherwise than they are issued.

Every function takes ASCII digits and capitals without separators, of the length that the shapes in
`tasks.scrub.identifiers` allow, and says whether they can be a number that is issued.
"""

from datetime import date
from importlib import import_module

from tasks.scrub.checks import luhn


def library(module: str, value: str) -> bool:
    """Whether a module of python-stdnum (https://arthurdejong.org/python-stdnum/) calls a number valid."""
    try:
        return import_module(f"stdnum.{module}").is_valid(value)
    except (LookupError, ValueError):   # of a place that its tables of China and Indonesia do not have
        return False


def weighted(digits: str, weights: tuple[int, ...]) -> int:
    """The weighted sum of the first digits."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_date(year: int, month: str, day: str) -> bool:
    """Whether there is such a day."""
    try:
        date(year, int(month), int(day))
    except ValueError:
        return False
    return True


def two_digit_date(year: str, month: str, day: str) -> bool:
    """Whether there is such a day in the 1900s or the 2000s."""
    return is_date(1900 + int(year), month, day) or is_date(2000 + int(year), month, day)


def aba_routing(value: str) -> bool:
    """Weights 3, 7, 1 modulo 10, and a Federal Reserve prefix (American Bankers Association)."""
    prefix = int(value[:2])
    return (prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80) and value[:4] != "0000" and (
        weighted(value, (3, 7, 1) * 3) % 10 == 0)


def npi(value: str) -> bool:
    """Luhn over the number behind 80840 (CMS, National Provider Identifier standard, 45 CFR 162.406)."""
    return value[0] in "12" and luhn("80840" + value) and len(set(value)) > 2


def dea(value: str) -> bool:
    """DEA registration number: odd places plus twice the even ones, modulo 10 (21 CFR 1301; the seventh digit)."""
    digits = value[2:]
    total = weighted(digits, (1, 0, 1, 0, 1)) + 2 * weighted(digits, (0, 1, 0, 1, 0, 1))
    return total % 10 == int(digits[6])


def luhn_card(value: str) -> bool:
    """Luhn alone (ISO/IEC 7812-1, annex B)."""
    return luhn(value) and len(set(value)) > 1


def nhs(value: str) -> bool:
    """Weights 10 to 2 modulo 11 (NHS Data Dictionary, NHS number); ten equal digits are not issued."""
    return len(set(value)) > 1 and (11 - weighted(value[:9], tuple(range(10, 1, -1))) % 11) % 11 == int(value[9])


def nino(value: str) -> bool:
    """Prefixes that HMRC allocates (National Insurance Manual, NIM39110)."""
    return (value[0] not in "DFIQUV" and value[1] not in "DFIOQUV" and value[8] in "ABCD"
            and value[:2] not in {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"} and len(set(value[2:8])) > 1)


def nif(value: str) -> bool:
    """The letter of a Spanish identity card number: modulo 23 (Real Decreto 1553/2005); zeros at its head may miss."""
    return value[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(value[:-1]) % 23] and int(value[:-1]) > 0


def nie(value: str) -> bool:
    """The same for a foreigner's number, X, Y, Z standing for 0, 1, 2 (Orden INT/2058/2008)."""
    return value[0] in "XYZ" and nif(str("XYZ".index(value[0])) + value[1:])


HETU_SIGNS = "0123456789ABCDEFHJKLMNPRSTUVWXY"


def hetu(value: str) -> bool:
    """Date, individual number, check character modulo 31 (DVV); 900 to 999 are temporary ones. The sign that says the
    century may be a letter of 2023's reform, or missing here where it was a hyphen."""
    sign = value[6] if len(value) == 11 else "-"
    number, check = value[7:10] if len(value) == 11 else value[6:9], value[-1]
    if not number.isdigit() or not value[:6].isdigit():
        return False
    century = 1900 if sign in "-YXWVU" else 2000 if sign in "ABCDEF" else 0
    return (bool(century) and is_date(century + int(value[4:6]), value[2:4], value[:2]) and int(number) >= 2
            and HETU_SIGNS[int(value[:6] + number) % 31] == check)


def nric(value: str) -> bool:
    """Singapore's NRIC and FIN: weights 2 7 6 5 4 3 2, an offset and an alphabet by the first letter (ICA)."""
    total = weighted(value[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(value[0], 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "XWUTRQPNJLK"}
    return value[0] in letters and value[8] == letters[value[0]][total % 11]


def medicare_au(value: str) -> bool:
    """Australian Medicare card: weights 1 3 7 9 modulo 10 over eight digits, the first 2 to 6 (Services Australia)."""
    return value[0] in "23456" and weighted(value, (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(value[8]) and value[9] != "0"


def sin(value: str) -> bool:
    """Luhn; 0 is for fictitious numbers and 8 for businesses (Service Canada)."""
    return value[0] not in "08" and luhn(value) and len(set(value)) > 1


def mod_11_10(value: str) -> bool:
    """ISO 7064 Mod 11, 10: the last digit checks those before it."""
    product = 10
    for digit in value[:-1]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return str((11 - product) % 10) == value[-1]


def tax_id_de(value: str) -> bool:
    """ISO 7064 Mod 11, 10 over eleven digits; 0 at the head is for tests (Bundeszentralamt für Steuern). Its rule on
    repeated digits is not asked for: examples break it, and a word has to name the number anyway."""
    return value[0] != "0" and len(set(value)) > 1 and mod_11_10(value)


def pension_de(value: str) -> bool:
    """Rentenversicherungsnummer: area, date (day up to 81 where numbers ran out), letter, weights 2 1 2 5 7 1 2 1
    2 1 2 1 with cross sums (VKVV § 4)."""
    if not (1 <= int(value[4:6]) <= 12 and 1 <= (int(value[2:4]) - 1) % 50 + 1 <= 31 and int(value[:2]) >= 2):
        return False
    digits = value[:8] + f"{ord(value[8]) - 64:02d}" + value[9:11]
    products = (int(digit) * weight for digit, weight in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True))
    return sum(product // 10 + product % 10 for product in products) % 10 == int(value[11])


def health_de(value: str) -> bool:
    """Krankenversichertennummer: the letter as two digits, weights 1 2, cross sums, modulo 10 (SGB V § 290)."""
    digits = f"{ord(value[0]) - 64:02d}" + value[1:9]
    products = (int(digit) * (1 + place % 2) for place, digit in enumerate(digits))
    return sum(product // 10 + product % 10 for product in products) % 10 == int(value[9])


def physician_de(value: str) -> bool:
    """Lebenslange Arztnummer: weights 4 9, the difference to the next ten (KBV, Richtlinie nach § 75 Abs. 7 SGB V)."""
    return (10 - weighted(value[:6], (4, 9) * 3) % 10) % 10 == int(value[6]) and len(set(value)) > 1


def document_de(value: str) -> bool:
    """Number of a German passport or identity card: ICAO 9303's weights 7 3 1 over a serial without vowels."""
    if set(value) - set("0123456789CFGHJKLMNPRTVWXYZ") or value[0] not in "CFGHJKLMNPRTVWXYZ":
        return False
    total = sum(int(sign, 36) * (7, 3, 1)[place % 3] for place, sign in enumerate(value[:8]))
    return value[8].isdigit() and total % 10 == int(value[8])


def resident_kr(value: str) -> bool:
    """Resident registration number: date and a digit for sex and century; no check digit since October 2020."""
    return value[6] in "1234" and is_date((1900 if value[6] in "12" else 2000) + int(value[:2]), value[2:4], value[4:6])


def foreigner_kr(value: str) -> bool:
    """The same for foreigners, whose seventh digit is 5 to 8."""
    return value[6] in "5678" and is_date((1900 if value[6] in "56" else 2000) + int(value[:2]), value[2:4], value[4:6])


def varied(value: str) -> bool:
    """Three different digits or more: all that can be asked of an account number of no known bank."""
    return len(set(value)) > 2


def business_kr(value: str) -> bool:
    """Business registration number: weights 1 3 7 1 3 7 1 3 5, and the ninth product's tens (National Tax Service)."""
    total = weighted(value, (1, 3, 7, 1, 3, 7, 1, 3, 5)) + int(value[8]) * 5 // 10
    return (10 - total % 10) % 10 == int(value[9]) and len(set(value)) > 1


def id_za(value: str) -> bool:
    """Date, citizenship 0 to 2 (2: refugee), 8 or 9, Luhn (Identification Act 68 of 1997)."""
    dated = two_digit_date(value[:2], value[2:4], value[4:6])
    return dated and value[10] in "012" and value[11] in "89" and luhn(value)


def organisation_se(value: str) -> bool:
    """Luhn, and a third digit of 2 or more, which tells it from a person's (Skatteverket, SKV 709)."""
    return value[2] >= "2" and luhn(value)


def person_se(value: str) -> bool:
    """Date (its day 60 higher in coordination numbers), Luhn over the last ten digits (Skatteverket, SKV 704)."""
    short, day = value[-10:], int(value[-6:-4])
    day = f"{day - 60 if day > 60 else day:02d}"
    if len(value) == 12:
        return value[:2] in {"18", "19", "20"} and is_date(int(value[:4]), value[4:6], day) and luhn(short)
    return two_digit_date(short[:2], short[2:4], day) and luhn(short)


def tin_ph(value: str) -> bool:
    """Taxpayer identification number: weights 9 to 2 modulo 11 (Bureau of Internal Revenue)."""
    return weighted(value, (9, 8, 7, 6, 5, 4, 3, 2)) % 11 == int(value[8]) and len(set(value[:9])) > 1


def date_last_digit_dk(value: str) -> bool:
    """CPR number: a date; its check digit was given up in 2007 (CPR-kontoret)."""
    return two_digit_date(value[4:6], value[2:4], value[:2])


def vat_de(value: str) -> bool:
    """USt-IdNr.: ISO 7064 Mod 11, 10 over nine digits behind DE."""
    return library("de.vat", value[2:])
