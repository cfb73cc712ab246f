import re
import string
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.scrub import Scrub, find
from tasks.scrub.candidates import REACH, candidates, expand, trie
from tasks.scrub.context import Names
from tasks.scrub.identifiers import IDENTIFIERS, shapes
from tasks.scrub.types import DEFAULT, TYPES
from tasks.spans import utf8

# The issuers' own examples, or numbers made here with the check digit; none is known to belong to anybody.
EXAMPLES = {
    "US_SSN": "519-34-8271", "US_MBI": "1EG4-TE5-MK73", "UK_NINO": "PR 12 36 12 C",
    "UK_DRIVING_LICENCE": "MORGA657054SM9IJ", "CN_RESIDENT_ID": "11010519491231002X", "SG_NRIC_FIN": "S1234567D",
    "TR_NATIONAL_ID": "10000000146", "ZA_ID_NUMBER": "8001015009087", "NO_FODSELSNUMMER": "15108695088",
    "DE_SOCIAL_SECURITY": "15070649C103", "DE_VAT_ID": "DE136695976", "DE_HANDELSREGISTER": "HRB 12345",
    "ES_NIF": "12345678Z", "ES_NIE": "X9613851N", "IT_FISCAL_CODE": "RSSMRA85T10A562S",
    "FI_PERSONAL_IDENTITY_CODE": "131052-308T", "SE_PERSONNUMMER": "871220-2384", "CZ_RODNE_CISLO": "710319/2745",
    "BE_NN": "85.07.30-033.28", "CH_AHV": "756.9217.0769.85", "FR_NIR": "2 55 08 14 168 025 38",
    "IN_PAN": "ABCPD1234Z", "IN_GSTIN": "27AAPFU0939F1ZV", "KR_RRN": "960121-1021413", "KR_BRN": "104-86-56659",
    "SG_UEN": "S57TU0392K", "AU_ABN": "51 824 753 556", "BR_CPF": "390.533.447-05", "BR_CNPJ": "16.727.230/0001-97",
    "AR_CUIT": "20-05536168-2", "CL_RUT": "12.531.909-2", "MX_CURP": "BOXW310820HNERXN09",
    "CARD": "4111 1111 1111 1111",
}
# These take a word, or a text without any.
NAMED = {
    "US_ITIN": ("my tax id 911 70 1234", "911 70 1234"), "US_NPI": ("NPI: 1234567893", "1234567893"),
    "UK_NHS": ("NHS number 401 023 2137", "401 023 2137"), "CA_SIN": ("mon NAS: 130-692-544", "130-692-544"),
    "DE_TAX_ID": ("IdNr. 12345678903", "12345678903"), "DE_HEALTH_INSURANCE": ("KVNR A123456780", "A123456780"),
    "DE_PASSPORT": ("Reisepass C01234565", "C01234565"), "NL_BSN": ("BSN 111222333", "111222333"),
    "PL_PESEL": ("PESEL 44051401458", "44051401458"),
    "IN_AADHAAR": ("Aadhaar 3123 4567 8909", "3123 4567 8909"),
    "TH_TNIN": ("Thai ID 1234567890121", "1234567890121"),
    "AU_TFN": ("TFN 876 543 210", "876 543 210"), "AU_MEDICARE": ("Medicare 2123 45670 1", "2123 45670 1"),
    "KR_PASSPORT": ("여권번호는 M789C1234입니다", "M789C1234"),
    "IT_VAT_CODE": ("partita IVA 01333550323", "01333550323"),
    "SE_ORGANISATIONSNUMMER": ("org.nr 556703-7485", "556703-7485"), "PH_TIN": ("TIN 000-123-456", "000-123-456"),
    "US_PASSPORT": ("her passport, A12803456", "A12803456"), "CARD": ("UATP card 122000000000003", "122000000000003"),
}


def found(text, **options):
    return [(span.type, text[span.offset:span.end]) for span in find([text], Scrub(**options))[0]]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_its_form_tells_stands_alone(kind):
    value = EXAMPLES[kind]
    for text in (f"It reads {value} there.", f"({value})", f"Nº:{value}, yes", f"é {value}\u3002"):
        assert found(text) == [(kind, value)], text
    assert found(f"It reads x{value} there", types=[kind]) in ([], [(kind, value)])
    assert kind == "DE_HANDELSREGISTER" or found(f"It reads {value}7 there", types=[kind]) == []


@pytest.mark.parametrize("kind", NAMED)
def test_a_number_of_little_evidence_takes_a_word(kind):
    text, value = NAMED[kind]
    assert found(text) == [(kind, value)]
    assert found(f"It reads {value} there", types=[kind]) == []
    assert found(f"It reads {value} there", types=[kind], context=False) == [(kind, value)]
    assert found(value, types=[kind]) == [(kind, value)]


@pytest.mark.parametrize("kind, text", [
    ("US_SSN", "666-12-3456"), ("US_SSN", "078-05-1120"), ("US_SSN", "123-45-0000"), ("US_ITIN", "tax id 911-89-1234"),
    ("UK_NINO", "BG123612A"), ("UK_NINO", "FQ 00 00 00 C"), ("UK_NHS", "NHS 401-023-2138"), ("ES_NIF", "12345678A"),
    ("ES_NIE", "Y8063915Q"), ("IT_FISCAL_CODE", "RSSMRA85T10A562T"), ("PL_PESEL", "PESEL 44051401459"),
    ("FI_PERSONAL_IDENTITY_CODE", "111111-111A"), ("SG_NRIC_FIN", "S1234567A here"), ("AU_ABN", "52 824 753 556"),
    ("IN_AADHAAR", "Aadhaar 1234 5678 9012"), ("BR_CPF", "390.533.447-06"), ("FR_NIR", "2 55 08 14 168 025 39"),
    ("DE_TAX_ID", "IdNr. 02345678901"), ("NL_BSN", "BSN 111222334"), ("SE_PERSONNUMMER", "871320-2384"),
    ("KR_RRN", "001332-1234567"), ("CA_SIN", "SIN 046 454-286"), ("US_MBI", "1EG4-LE5-MK73"),
    ("CARD", "4111 1111 1111 1112"), ("ZA_ID_NUMBER", "SA ID 8001015009086"),
    ("US_SSN", "1519-34-8271"), ("US_SSN", "519-34-8271-1"),
    ("US_SSN", "0.519-34-8271"), ("ES_NIF", "/12345678Z.html"), ("CARD", "x4111111111111111"),
])
def test_what_only_looks_like_an_identifier_stays(kind, text):
    assert found(f"It reads {text} there", types=[kind]) == []


def test_ties_go_to_what_a_word_names_and_lines_do_not_run_together():
    assert found("passport CD7654321") == [("UK_PASSPORT", "CD7654321")]
    assert found("passaporto AA1234567 del 2020")[0][1] == "AA1234567"
    assert found("078 05\n1123") == found("SSN 078 05\n1123") == []
    for text in ("account not found: 20481632", "checking 20481632 rows", "in Cardiff 122000000000003 times"):
        assert found(text) == [], text
    assert found("4111 1111 1111 1111 12/25 123") == [("CARD", "4111 1111 1111 1111")]


def test_a_field_is_a_text_without_words():
    assert found("130692544") == [("US_SSN", "130692544")]
    assert found("130692544", types=["CA_SIN"]) == [("CA_SIN", "130692544")]
    assert found("the 130692544") == []
    assert found("130692544 " * 20) == []
    assert found("53125226D 201434292D S57TU0392K", types=["SG_UEN"]) == [
        ("SG_UEN", "53125226D"), ("SG_UEN", "201434292D"), ("SG_UEN", "S57TU0392K")]


def test_the_table():
    assert {row.type for row in IDENTIFIERS} <= set(TYPES) and len(set(TYPES)) == len(TYPES)
    assert set(EXAMPLES) | set(NAMED) <= set(DEFAULT)
    for row in IDENTIFIERS:
        assert row.alone or row.words, row.type
        assert row.check or row.pattern or row.words, row.type
        assert not row.region or len(row.region) == 2
    assert len({row.region for row in IDENTIFIERS if row.check}) >= 40
    known, rows = shapes()
    assert len(known.shapes) == len(rows) and all("9" in shape[:REACH + 1] for shape in known.shapes)
    assert len(known.steps) < 2 ** 15 and known.steps.max() < len(known.steps)


@pytest.mark.parametrize("seed", range(40))
def test_every_check_says_yes_or_no_to_whatever_has_a_shape(seed):
    random = Random(seed)
    for row in IDENTIFIERS:
        for shape in f"{row.alone}|{row.named}".split("|"):
            for plain in expand(shape)[:1] if shape else ():
                value = "".join(random.choice(string.digits if sign == "9" else string.ascii_uppercase)
                                for sign in plain if sign in "9A")
                if row.check and re.fullmatch(row.pattern or ".*", value):
                    assert row.check(value) in (True, False), row.type


def test_a_place_that_the_library_does_not_know_is_no_error():
    assert found("411111111111111129", types=["CN_RESIDENT_ID"]) == []
    assert found("2125550123 4111 1111 1111 1111")[-1] == ("CARD", "4111 1111 1111 1111")


def test_shapes():
    assert expand("9{2,3}^A") == ["99 A", "99-A", "999 A", "999-A"]
    assert expand("9~9") == ["99", "9 9", "9-9"] and sorted(expand("X*X")) == sorted(
        a + s + b for a in "9A" for b in "9A" for s in ("", " ", "-", "."))


def spelt(text):
    return "".join("9" if c.isdigit() else "A" if c.isascii() and c.isalpha() else
                   " " if c == "\u00a0" else "-" if c in "\u2010\u2013" else c for c in text)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(list(EXAMPLES.values())), st.sampled_from("é漢\u00a0🙂\u2010"),
                          st.text("09Az -./:,_$", max_size=12)), max_size=10))
def test_candidates_have_their_shape_and_lie_where_they_say(pieces):
    texts = pa.array(["".join(pieces), "", "x" + "".join(pieces)])
    known, _ = shapes()
    seen = set()
    for text, start, length, first, last, shape, glued in candidates(*utf8(texts), known).tolist():
        data = texts.to_pylist()
        piece = data[text][start:start + length]
        offset = sum(len(t.encode()) for t in data[:text])
        assert data[text].encode()[first - offset:last - offset].decode() == piece
        assert spelt(piece) == known.shapes[shape]
        assert (text, start, length, shape) not in seen
        seen.add((text, start, length, shape))
        before, after = data[text][start - 1:start] if start else "", data[text][start + length:start + length + 1]
        assert not (after.isascii() and (after.isalnum() or after == "_"))
        assert bool(glued) == (before.isascii() and before.isalpha())


def test_a_shape_is_found_wherever_a_word_begins():
    """What may stand beside a number, and what makes it part of another."""
    known = trie(["999-99", "99999", "AA 99"])
    for text, wanted in [("123-45", [0]), ("x 12345 y", [1]), ("AB 12", [2]), ("it AB 12 to", [2]), ("12345-6", []),
                         ("ABC 12", []), ("1.12345", []), ("No.12345", [1]), ("$12345", []), ("12345@x", []),
                         ("12345.", [1]), ("12345.6", []),
                         ("12345 6", [1]), ("_12345", []), ("é12345", []), ("漢12345漢", [1])]:
        assert [row[5] for row in candidates(*utf8(pa.array([text])), known).tolist()] == wanted, text


def test_words_that_name():
    names = Names(["pass|travel document|reisepass~", "证件"])
    for text, there in [("my PASS is", 1), ("passed", 0), ("a travel-document no", 1), ("travel", 0),
                        ("Reisepassnummer", 1),                        ("sein Reisepass", 1), ("证件号", 1), ("", 0)]:
        assert len(names.within(text)) == there, text
