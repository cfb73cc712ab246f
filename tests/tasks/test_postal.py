import pytest

from tasks.scrub import Scrub, find
from tasks.scrub.postal import TYPES
from tasks.scrub.types import DEFAULT


def found(text, types=TYPES):
    return [(span.type, text[span.offset:span.end]) for span in find([text], Scrub(types=types))[0]]


@pytest.mark.parametrize("text, address", [
    ("Send it to 221B Baker Street, London NW1 6XE, please.", "221B Baker Street, London NW1 6XE"),
    ("lives at 1600 Pennsylvania Ave NW, Washington, DC 20500 now", "1600 Pennsylvania Ave NW, Washington, DC 20500"),
    ("at 350 Fifth Avenue, Suite 3300, New York, NY 10118-0110.",
     "350 Fifth Avenue, Suite 3300, New York, NY 10118-0110"),
    ("write to P.O. Box 1234, Springfield, IL 62701", "P.O. Box 1234, Springfield, IL 62701"),
    ("her house, 12 Elm Grove, burnt", "12 Elm Grove"),
    ("742 Evergreen Terrace\nSpringfield, OR 97403", "742 Evergreen Terrace\nSpringfield, OR 97403"),
])
def test_addresses(text, address):
    assert found(text) == [("POSTAL_ADDRESS", address)]


@pytest.mark.parametrize("text", [
    "in 1999 the Street was", "10 of the best Roads", "version 12 Drive", "the 3 Way bulb", "SW1A is a district",
    "M1 1CA", "XA1 1AA", "1A1 1AA", "model A1 2BC3",
])
def test_what_only_looks_like_one_stays(text):
    assert found(text) == []


def test_codes_alone():
    assert found("the code is SW1A 1AA, or ZIP: 35350, or TX 75001") == [
        ("UK_POSTCODE", "SW1A 1AA"), ("ZIP_CODE", "35350"), ("ZIP_CODE", "75001")]
    assert not set(TYPES) & set(DEFAULT)


@pytest.mark.parametrize("unit", [
    "1 A ", "1 Aa ", "12 Elm Grove ", "Aa ", "1", "P.O. Box 1 ", "12 Elm Grove, A, ", "A1", "1 St ", "\n"])
def test_hostile_repetition_comes_to_an_end(unit):
    assert all(span.length > 0 for span in find([(unit * 100_000)[:100_000]], Scrub(types=TYPES))[0])
