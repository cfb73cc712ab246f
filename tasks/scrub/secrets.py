"""Credentials that leak into web pages: found by the prefixes that their issuers gave them for this purpose.

Forms as published by the issuers and collected in gitleaks' rules (https://github.com/gitleaks/gitleaks, config/
gitleaks.toml). Every pattern takes linear time: it can start only at a literal, and a run of the characters it repeats
holds one such start at most, or the repetition is bounded.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from math import log2

# type -> (literals one of which a text must hold, pattern)
TOKENS = {
    "GITHUB_TOKEN": (
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{82})(?![A-Za-z0-9_])")),
    "AWS_KEY": (
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])")),
    "GOOGLE_KEY": (
        ("AIza", "GOCSPX-", "ya29."),
        re.compile(r"(?<![A-Za-z0-9_-])(?:AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{20,2048})"
                   r"(?![A-Za-z0-9_-])")),
    "SLACK_TOKEN": (
        ("xox", "xapp-", "hooks.slack.com"),
        re.compile(r"(?<![A-Za-z0-9-])(?:xox[abeoprs]-|xapp-)[0-9][A-Za-z0-9-]{9,250}(?![A-Za-z0-9-])"
                   r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,60}(?![A-Za-z0-9+/])")),
    "JWT": (
        ("eyJ",),
        re.compile(r"(?<![A-Za-z0-9_.-])eyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}"
                   r"(?![A-Za-z0-9_-])")),
    "STRIPE_KEY": (
        ("k_live_", "k_test_", "whsec_"),
        re.compile(r"(?<![A-Za-z0-9_.-])(?:[sr]k_(?:live|test)_[A-Za-z0-9]{24,247}|whsec_[A-Za-z0-9+/]{32,64})"
                   r"(?![A-Za-z0-9_-])")),
    # OpenAI's keys hold "OpenAI" in Base64; those of others took the form over.
    "OPENAI_KEY": (
        ("T3BlbkFJ", "sk-proj-", "sk-ant-", "sk-or-v1-", "sk-svcacct-", "sk-admin-"),
        re.compile(r"(?<![A-Za-z0-9_.-])sk-(?:[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"
                   r"|(?:proj|ant|or-v1|svcacct|admin)-[A-Za-z0-9_-]{40,200})(?![A-Za-z0-9_-])")),
    "SECRET": (
        ("glpat-", "hf_", "npm_", "pypi-AgEI", "SG.", "dop_v1_", "shpat_"),
        re.compile(r"(?<![A-Za-z0-9_.-])(?:glpat-[A-Za-z0-9_-]{20}|hf_[A-Za-z]{34}"
                   r"|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50,1000}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
                   r"|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32})(?![A-Za-z0-9_-])")),
}

# RE2's \s is ASCII's; what Python's matches more, such as a no-break space, is named.
NAMED_GATE = (r"(?i:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)[A-Za-z0-9_-]{0,20}[\"']?"
              r"[\s\pZ\x0b\x1c-\x1f\x{85}]{0,5}[:=]|(?i:bearer)[ \t]|://[^/\s:@]*:[^/\s]*@")
# A quoted or bare value given to a name that speaks of a secret; the value must look random (see `_is_random`).
_VALUE = re.compile(r"[:=]>?\s{0,5}[\"'`]?([A-Za-z0-9+/=_.~-]{16,150})(?![A-Za-z0-9+/=_.~-])")
_NAME = re.compile(r"(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential)[A-Za-z0-9_-]{0,20}"
                   r"[\"']?\s{0,5}:?$", re.IGNORECASE)

_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# Line ends may be written as backslash and n, as in JSON, and be escaped again; headers are RFC 1421's and RFC 4880's.
# Nothing here is tried twice: the repetitions are possessive.
_BODY = re.compile(r"(?:(?:\s|\\{1,4}[nrt])*+"
                   r"(?:Proc-Type|DEK-Info|Version|Comment|MessageID|Hash|Charset):[^\n\\]{0,100}+)*+"
                   r"(?:(?:\s|\\{1,4}[nrt/])*+[A-Za-z0-9+/=]++)*+")

# RFC 6750, section 2.1. What is a name for a token says so, and less randomness is enough.
_BEARER = re.compile(r"(?<![A-Za-z0-9])bearer[ \t]{1,5}([A-Za-z0-9+/=_.~-]{15,2047}[A-Za-z0-9+/=_~-])"
                     r"(?![A-Za-z0-9+/=_~-])", re.IGNORECASE)
# RFC 3986, section 3.2.1: user:password@host. A port with what may stand behind a URL is none. The host goes with the
# password, which would otherwise be taken for the name of an e-mail address there, and not as a whole.
_IN_URL = re.compile(r"://[^\s/:@?#\"'<>]{0,128}:(?![0-9]{1,5}[)\],;|?])([^\s/\"'<>]{1,256})@(?=[\w\[])(?:[\w.-]{0,600}\w)?")
_NO_PASSWORDS = frozenset("password passwd pass pwd pw secret".split())     # what examples write


def tokens(text: str, enabled: frozenset[str]) -> Iterator[tuple[str, int, int]]:
    """(type, start, end) in code points of credentials with an issuer's prefix."""
    for kind, (literals, pattern) in TOKENS.items():
        if kind in enabled and any(literal in text for literal in literals):
            for match in pattern.finditer(text):
                yield kind, match.start(), match.end()


def assignments(text: str) -> Iterator[tuple[str, int, int]]:
    """Credentials without a form of their own: values that are assigned to a name such as `api_key` and look random
    (the span is the value alone), bearer tokens, and passwords in URLs (with the host)."""
    for match in _VALUE.finditer(text):
        if _is_random(match.group(1)) and _NAME.search(text, max(0, match.start() - 48), match.start()):
            yield "SECRET", match.start(1), match.end(1)
    for match in _BEARER.finditer(text):
        if _is_random(match.group(1), 3.0):
            yield "SECRET", match.start(1), match.end(1)
    for match in _IN_URL.finditer(text):
        password = match.group(1)
        if password.lower() not in _NO_PASSWORDS and password[0] not in "${" and set(password) - set("*.xX"):
            yield "SECRET", match.start(1), match.end()


def private_keys(text: str) -> Iterator[tuple[str, int, int]]:
    """PEM blocks of private keys (RFC 7468) with their armour lines; one cut off reaches as far as base64 does."""
    begins = list(_BEGIN.finditer(text))
    ends = list(_END.finditer(text)) if begins else []
    starts_of_ends = [match.start() for match in ends]
    for index, begin in enumerate(begins):
        limit = begins[index + 1].start() if index + 1 < len(begins) else len(text)
        at = bisect_left(starts_of_ends, begin.end())
        if at < len(ends) and ends[at].end() <= limit:
            yield "PRIVATE_KEY", begin.start(), ends[at].end()
        else:
            body = _BODY.match(text, begin.end(), limit)
            yield "PRIVATE_KEY", begin.start(), body.end()


def _is_random(value: str, bits: float = 3.5) -> bool:
    """Letters and digits mixed, and a Shannon entropy of 3.5 bits a character or more (gitleaks' generic-api-key)."""
    if not (any("0" <= c <= "9" for c in value) and any(c.isalpha() for c in value)):
        return False
    return -sum(n / len(value) * log2(n / len(value)) for n in Counter(value).values()) >= bits
