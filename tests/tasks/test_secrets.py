import json

import pytest

from tasks.scrub import Scrub, apply, find
from tasks.scrub.secrets import assignments, private_keys, tokens
from tasks.spans import Span

BODY = "MIIEpAIBAAKCAQEA7x+abc/DEF012345678901234567890123456789012345678901234"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n{BODY}\nQUJDRA==\n-----END RSA PRIVATE KEY-----\n"
ENCRYPTED = PEM.replace("KEY-----\nMII", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0F1E2D3C\n\nMII", 1)
PGP = ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2.0.22 (GNU/Linux)\nComment: it's mine\n\n"
       f"{BODY}\n=aBcD\n")


@pytest.mark.parametrize("text", [
    PEM, ENCRYPTED, PGP, json.dumps(PEM)[1:-1], json.dumps(ENCRYPTED)[1:-1], json.dumps(json.dumps(PEM)[1:-1])[1:-1],
    json.dumps(PEM.replace("\n", "\r\n"))[1:-1], json.dumps(PEM)[1:-1].replace("/", r"\/"),
    ENCRYPTED.replace("\n", " "),
], ids=["pem", "encrypted", "pgp", "json", "encrypted json", "json twice", "crlf json", "slashes", "one line"])
def test_of_a_private_key_that_is_cut_off_nothing_stays(text):
    cut = text.partition("-----END")[0]
    for before, after in (("", ""), ("the key: ", "... (the rest is cut off)"), ('{"key": "', '", "x": "MII"}')):
        found = find([before + cut + after])[0]
        assert [span.type for span in found] == ["PRIVATE_KEY"]
        scrubbed = apply(before + cut + after, found)
        assert scrubbed.startswith(before + "<PRIVATE_KEY>") and scrubbed.endswith(after) and BODY not in scrubbed
        assert "MIIE" not in scrubbed and "DEK-Info" not in scrubbed and find([scrubbed]) == [[]]


def test_behind_a_private_key_that_is_cut_off_the_text_goes_on():
    text = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n\n(and so on)"
    assert apply(text, find([text])[0]) == "<PRIVATE_KEY>\n\n(and so on)"


GOOGLE = "ya29.a0AfH6SMBx_3-" + "Zk9" * 12
SECRET = "b7Kq9ZtR2mX4vL8wPe1s"
BEARER = "mF_9.B5f-4.1JqM0a1B2c3D4"


@pytest.mark.parametrize("text, secret, kind", [
    (f"use {GOOGLE} now", GOOGLE, "GOOGLE_KEY"),
    (f"Authorization: Bearer {BEARER}", BEARER, "SECRET"),
    (f"curl -H 'authorization: bearer {BEARER}' there", BEARER, "SECRET"),
    (f"She sent Bearer {BEARER}. Then", BEARER, "SECRET"),
    (f"Authorization: Bearer {BEARER * 20}==", BEARER * 20 + "==", "SECRET"),
    (f"api_key\xa0: {SECRET}", SECRET, "SECRET"), (f"my secret\u3000= {SECRET}", SECRET, "SECRET"),
    (f"access_key\x0b\x85\u202f:{SECRET}", SECRET, "SECRET"),
    ("postgres://admin:hunter2@localhost/db", "hunter2@localhost", "SECRET"),
    ("git clone https://me:Xy.7#a!b@git.example.org:8443/x.git", "Xy.7#a!b@git.example.org", "SECRET"),
    ("redis://:p@ss:w0rd@cache.example.com/0", "p@ss:w0rd@cache.example.com", "SECRET"),
    ("mongodb+srv://u%40x:0815@[2001:db8::1]/", "0815@", "SECRET"),
    ("<ftp://jo:correct-horse@192.0.2.7>", "correct-horse@192.0.2.7", "SECRET"),
])
def test_credentials_that_have_a_name_or_a_place(text, secret, kind):
    assert find([text]) == [[Span(kind, text.index(secret), len(secret))]]
    once = apply(text, find([text])[0])
    assert find([once]) == [[]]


@pytest.mark.parametrize("text", [
    "ya29.short", "aya29." + "a1B2" * 9, "the bearer of this letter", "Bearer authentication-is-explained-here",
    "Bearer YOUR_ACCESS_TOKEN", "http://localhost:8080/x@y", "see http://host:8080 and ask @home",
    "[x](http://a.example:80)[y](z@home)", "http://host:80, or @home", "https://example.org/a:b@c",
    "https://user:password@host/", "https://user:${PASSWORD}@host/", "http://user:****@host/", "a://b:c d@e",
    "https://me@host:8080/",
])
def test_what_only_looks_like_a_credential_stays(text):
    assert find([f"It reads {text} there"]) == [[]]


def test_credentials_are_a_choice():
    assert find(["ftp://jo:correct-horse@localhost"], Scrub(types=("EMAIL",))) == [[]]


@pytest.mark.parametrize("unit", [
    "\n", r"\n", "\\", "A", "A ", "A\\n", "Version:", "Version: ", "\nComment:\n", "Proc-Type: 4,ENCRYPTED\n", " \\r",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n\\n", "Bearer ", "bearer", "Bearer a1", "://", "://a:",
    "://a:a", ":@", "://:a@", "a@", ":", "ya29.", "ya29.a"])
def test_hostile_text_takes_linear_time(unit):
    """Seconds at most; more than linear time would take hours."""
    text = "-----BEGIN PRIVATE KEY-----://a:Bearer " + (unit * (1_000_000 // len(unit) + 1))[:1_000_000] + "!"
    for _, start, end in (*tokens(text, frozenset({"GOOGLE_KEY"})), *private_keys(text), *assignments(text)):
        assert 0 <= start < end <= len(text)
