"""The types of personal data, in the order in which the earlier has it where two finds are equally long.

The table of numbered identifiers, with countries, checks and sources, is `tasks.scrub.identifiers.IDENTIFIERS`; the
forms of credentials are in `tasks.scrub.secrets`; the others and their sources:

    EMAIL           RFC 5321 dot-atom at a dotted domain (RFC 6531 for other scripts)
    IP              RFC 4291 and dotted quads; those that route (IANA special-purpose registries)
    MAC_ADDRESS     IEEE 802 EUI-48
    PHONE           ITU-T E.164 plans of all countries (libphonenumber)
    IBAN            ISO 13616, mod 97
    CARD            ISO/IEC 7812, issuer ranges, Luhn
    CRYPTO          Base58Check, BIP 173 and BIP 350, EIP-55
"""

from tasks.scrub.identifiers import NUMBERED
from tasks.scrub.postal import TYPES as POSTAL

CREDENTIALS = ("PRIVATE_KEY", "JWT", "GITHUB_TOKEN", "AWS_KEY", "GOOGLE_KEY", "SLACK_TOKEN", "STRIPE_KEY", "OPENAI_KEY",
               "SECRET")
NAMES = ("NAME", "PLACE", "ORGANISATION")       # by the model that `scrub.ner` names
DEFAULT = (*CREDENTIALS, "IBAN", "CARD", "EMAIL", "IP", "MAC_ADDRESS", "CRYPTO",
           *(kind for kind in NUMBERED if kind != "CARD"), "PHONE")
TYPES = (*DEFAULT, *POSTAL, *NAMES)
