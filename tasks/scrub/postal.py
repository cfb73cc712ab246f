"""Street addresses of the United States and the United Kingdom, found by how they are written: off by default.

A number, one to four capitalised words, a word for a street, and what follows on to the ZIP code or postcode; a post
office box; a postcode that its country's plan allows. It finds no address without one of these, takes part of some,
and takes names of places (`10 Downing Street`) that are public; so a corpus of places is better without it.

Street words: USPS Publication 28, appendix C1 (https://pe.usps.com/text/pub28/28apc_002.htm), the common ones, and the
usual British ones. Postcodes: the pattern of BS 7666 as the Office for National Statistics gives it.
"""

import re
from collections.abc import Iterator

TYPES = ("POSTAL_ADDRESS", "UK_POSTCODE", "ZIP_CODE")

_STREET = (r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq|Terrace|Ter|"
           r"Way|Parkway|Pkwy|Circle|Cir|Highway|Hwy|Trail|Trl|Close|Crescent|Cres|Gardens|Grove|Mews|Row|Walk|Hill|Quay|"
           r"Wharf|Broadway|Turnpike|Alley|Plaza|Loop|Pike)")
_STATE = (r"(?:A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|"
          r"V[AT]|W[AIVY]|PR|GU|VI|AE|AP|AA)")
_POSTCODE = (r"(?:GIR ?0AA|(?:[A-PR-UWYZ][0-9]{1,2}|[A-PR-UWYZ][A-HK-Y][0-9]{1,2}|[A-PR-UWYZ][0-9][A-HJKPSTUW]"
             r"|[A-PR-UWYZ][A-HK-Y][0-9][ABEHMNPRV-Y]) ?[0-9][ABD-HJLNP-UW-Z]{2})")
_UNIT = r"(?:[,\s]{1,3}(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Flat|Room|Rm|#)\.? ?#?[A-Z0-9-]{1,6})?"
_TOWN = r"(?:[,\s]{1,4}[A-Z][A-Za-z.'-]{1,20}(?: [A-Z][A-Za-z.'-]{1,20}){0,3}){0,3}"
_ADDRESS = re.compile(
    rf"(?<![\w.,-])(?:[0-9]{{1,5}}[A-Za-z]?(?:[-/][0-9]{{1,4}})?,? (?:[NSEW]\.? |[NS][EW] )?"
    rf"(?:(?:[A-Z][A-Za-z.'-]{{1,20}}|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,4}}{_STREET}\b\.?(?: [NSEW]{{1,2}}\b)?"
    rf"|P\.? ?O\.? Box [0-9]{{1,6}}){_UNIT}"
    rf"(?:{_TOWN}[,\s]{{1,4}}(?:{_STATE}[,\s]{{1,3}}[0-9]{{5}}(?:-[0-9]{{4}})?|{_POSTCODE}))?(?!\w)")
_CODE = re.compile(rf"(?<![\w-]){_POSTCODE}(?![\w-])")
_ZIP = re.compile(rf"(?<!\w)(?:{_STATE},? ([0-9]{{5}}(?:-[0-9]{{4}})?)|(?:ZIP|zip)(?: ?code)?(?: is|:)? "
                  rf"([0-9]{{5}}(?:-[0-9]{{4}})?))(?![\w-])")
GATE = r"[0-9]"


def addresses(text: str, types: frozenset[str]) -> Iterator[tuple[str, int, int]]:
    """(type, start, end) in code points."""
    if "POSTAL_ADDRESS" in types:
        for match in _ADDRESS.finditer(text):
            yield "POSTAL_ADDRESS", *match.span()
    if "UK_POSTCODE" in types:
        for match in _CODE.finditer(text):
            yield "UK_POSTCODE", *match.span()
    if "ZIP_CODE" in types:
        for match in _ZIP.finditer(text):
            yield "ZIP_CODE", *match.span(match.lastindex)
