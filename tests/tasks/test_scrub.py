import string

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.schema import SPANS, all_rows, doc_id, id_array
from tasks.scrub import Scrub, apply, find, spans
from tasks.scrub.checks import is_card, is_iban, is_public_ip, luhn
from tasks.scrub.finders import FINDERS, Options
from tasks.scrub.types import TYPES
from tasks.spans import Span, lists, unlisted

SECRETS = {
    "GITHUB_TOKEN": "ghp_" + "a1B2" * 9,
    "AWS_KEY": "AKIAIOSFODNN7EXAMPLE",
    "GOOGLE_KEY": "AIza" + "Sy0-_" * 7,
    "SLACK_TOKEN": "xoxb-" + "1234567890-abcdefghij",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "SECRET": "hf_" + "abcdefgHIJ" * 3 + "abcd",
    "PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----\nMIIB+abc/def=\n-----END RSA PRIVATE KEY-----",
}
VALUES = SECRETS | {
    "EMAIL": "jane.roe+news@mail.example.com", "PHONE": "+44 20 7946 0958", "IP": "93.184.216.34",
    "MAC_ADDRESS": "00:1A:2B:3C:4D:5E", "CRYPTO": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
    "CARD": "4111 1111 1111 1111", "IBAN": "DE89 3704 0044 0532 0130 00",
}


EVERYTHING = Options(frozenset(TYPES), ("US", "GB"))


def types_of(text, **options):
    return [span.type for span in find([text], Scrub(**options))[0]]


@pytest.mark.parametrize("kind", VALUES)
def test_every_type_is_found_alone_and_in_a_sentence(kind):
    value = VALUES[kind]
    for before, after in [("", ""), ("Ünïcödé 🙂 says: ", " and more."), ("(", ")"), ("«", "»\n"), ("is ", ", or")]:
        text = before + value + after
        assert find([text]) == [[Span(kind, len(before), len(value))]], text
        assert apply(text, find([text])[0]) == f"{before}<{kind}>{after}"


@pytest.mark.parametrize("text", [
    "write to info at example.com", "decorate with @staticmethod or a @ sign", "mail me @ home", "logo@2x.png", "x@y",
    "version 1.2.3.4 of it", "v8.8.8.8", "release: 8.8.4.4", "see section 4.3.2.1 of it", "oid 1.3.6.1",
    "pkg-8.8.8.8.tar",
    "ip 192.168.0.1 and 10.1.2.3 and 127.0.0.1 and 2001:db8::1", "8.8.8.8.8", "std::a::b 12:34:56", "256.8.8.8",
    "08.8.8.8", "8.8.8.8 said he", "Flash Player 11.202.235.10", "Chrome 105.0.195.27", "Gb82WEST12345698765432",
    "John Knittel. (1891-1970", "in the hotel 2125550123", "80 90 100 110 120", "21 22 23 24 25 26",
    "ISBN 978-90-04-13899-5", "2.147.483.648", "1080p at 25/29.97/50/59.94", "4.5.1.1. Boot", "+12345.000",
    "00:00:5E:00:53:7F", "FF:FF:FF:FF:FF:FF", "12:34:56:78:90", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5D359", "0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359",
    "4111 1111 1111 1112", "4111-1111 1111-1111", "0.4111111111111111", "a4111111111111111", "9111111111111111",
    "DE89 3704 0044 0532 0130 01", "DE88370400440532013000", "DE89 3704 0044 0532 0130 000", "XX89370400440532013000",
    "on 2020-10-11 12:30:45", "ISBN 978-3-16-148410-0", "pi is 3.14159265358979", "2125550123", "1 2 3 4 5 6 7 8 9 10",
    "pages 1234-5678", "$1 000 000 000", "/archive/212/555/0123/", "10.1126/science.283.5402.674", "1,234,567,890",
    "password = os.environ['PASSWORD_NAME']", "token: aaaaaaaaaaaaaaaaaaaa", "the secret: he never paid", "AKIA",
    "eyJ.eyJ.x",
    "-----BEGIN PUBLIC KEY-----", "sk-learn-is-a-library",
])
def test_what_only_looks_like_personal_data_stays(text):
    assert find([f"It reads {text}\nthere, as such"]) == [[]]


@pytest.mark.parametrize("text, kinds", [
    ("call 2125550123", ["PHONE"]), ("(212) 555-0123", ["PHONE"]), ("212.555.0123", ["PHONE"]),
    ("020 7946 0958", ["PHONE"]), ("First 07911123456 then", ["PHONE"]),
    ("Tel. (90)(212) 555-0123 ext. 12", ["PHONE"]), ("212 555 0123 646 555 0199", ["PHONE", "PHONE"]),
    ("http://8.8.8.8/x", ["IP"]), ("[2606:4700::1111]:53", ["IP"]), ("::ffff:8.8.8.8", ["IP"]), ("8.8.8.8.", ["IP"]),
    ("ping 8.8.8.8 and", ["IP"]), ("from the address 8.8.4.4 at", ["IP"]), ("is 2001:4860:4860::8888 so", ["IP"]),
    ("its MAC is 00-1A-2B-3C-4D-5E or 0012.3456.789a.", ["MAC_ADDRESS"] * 2),
    ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4, 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", ["CRYPTO"] * 2),
    ("my Ethereum wallet 0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359", ["CRYPTO"]),
    ("sk_live_" + "a1B2" * 6, ["STRIPE_KEY"]), ("sk-proj-" + "a1B2" * 12, ["OPENAI_KEY"]),
    ("Phone: 60-56-85-91\nFax: 467 3395", ["PHONE"] * 2), ("(37) 788-063-Office", ["PHONE"]),
    ("_a.b@c.example_", ["EMAIL"]), ("<o'brien@example.org>", ["EMAIL"]), ("a@b.example.\n", ["EMAIL"]),
    ("почта@пример.испытание", ["EMAIL"]), ("user@xn--80ak6aa92e.com", ["EMAIL"]),
    ("4012888888881881 4012-8888-8888-1881 3714 496353 98431", ["CARD"] * 3), ("gb82west12345698765432", ["IBAN"]),
    ("GB82WEST12345698765432 VG96 VPVG 0000 0123 4567 8901 is", ["IBAN", "IBAN"]),
    ("-----BEGIN PRIVATE KEY-----\nMIIBabc\n", ["PRIVATE_KEY"]), ('api_key = "0a1b2c3d4e5f6g7h8i9j"', ["SECRET"]),
])
def test_forms(text, kinds):
    assert types_of(text) == kinds


def test_the_country_of_the_page_decides_how_a_national_number_is_read():
    text, german = ["Ruf doch 030 901820"], Scrub(regions=("DE",))
    assert find(text, Scrub(regions=("US",)), ["a.example"]) == [[]]
    assert find(text, german)[0] == find(text, Scrub(regions=("US",)), ["stadt.de"])[0] == [Span("PHONE", 9, 10)]
    assert find(text, Scrub(regions=("US",), region_by_domain=False), ["stadt.de"]) == [[]]


def test_the_longest_find_has_it():
    assert types_of("4111111111111111@mail.example") == ["EMAIL"]
    assert types_of("key AKIAIOSFODNN7EXAMPLE@mail.example") == ["EMAIL"]
    assert types_of(SECRETS["PRIVATE_KEY"].replace("MIIB", "MIIB AKIAIOSFODNN7EXAMPLE ")) == ["PRIVATE_KEY"]


def test_types_are_a_choice():
    text = "\n".join(VALUES.values())
    assert types_of(text, types=("IBAN", "JWT")) == ["JWT", "IBAN"]
    assert types_of(text, types=()) == []
    with pytest.raises(ValueError, match="unknown types SURNAME"):
        Scrub(types=("SURNAME",))
    with pytest.raises(ValueError, match="no phone numbering plan for XX"):
        Scrub(regions=("XX",))


def test_stage_gives_one_row_a_kept_document():
    texts = ["nothing here", "mail a@b.example now", "dropped@b.example", VALUES["CARD"]]
    documents = pa.table({"doc_id": id_array([doc_id("x", i) for i in range(4)]), "domain": pa.array(["a.example"] * 4),
                          "text": pa.chunked_array([texts[:2], texts[2:]])})
    kept = all_rows(documents).take([0, 1, 3])
    cut = pa.table({"doc_id": documents["doc_id"], "row": all_rows(documents)["row"],
                    "spans": lists([[], [Span("line_navigation", 0, 5, "")], [], []])}, schema=SPANS)
    table = spans(documents, cut, kept, Scrub())
    assert table.schema.equals(SPANS)
    assert table["row"].to_pylist() == [0, 1, 3]
    found = unlisted(table["spans"])
    assert found == [[], [Span("line_navigation", 0, 5, ""), Span("EMAIL", 5, 11)], [Span("CARD", 0, 19)]]
    assert apply(texts[1], found[1]) == "<EMAIL> now"
    assert len(spans(documents, cut, kept.slice(0, 0), Scrub())) == 0
    with pytest.raises(ValueError, match="row and doc_id disagree"):
        spans(documents, cut, kept.set_column(1, "row", pa.array([3, 1, 0], pa.int32())), Scrub())
    with pytest.raises(ValueError, match="without a row of spans"):
        spans(documents, cut.slice(0, 3), kept, Scrub())


def test_what_a_cut_brings_together_is_found():
    """A value that a cut line interrupts stands in one piece in what is read: it goes as a whole."""
    text = "write to jane.roe@\nRead more\nmail.example.com soon"
    documents = pa.table({"doc_id": id_array([doc_id("x", 0)]), "domain": ["a.example"], "text": [text]})
    cut = pa.table({"doc_id": documents["doc_id"], "row": pa.array([0], pa.int32()),
                    "spans": lists([[Span("line_navigation", 18, 11, "")]])}, schema=SPANS)
    found = unlisted(spans(documents, cut, all_rows(documents), Scrub())["spans"])[0]
    assert apply(text, found) == "write to <EMAIL> soon"


def test_apply_refuses_spans_that_do_not_fit():
    for wrong in [[("IP", 2, 3), ("IP", 4, 1)], [("IP", 4, 1), ("IP", 0, 1)], [("IP", 3, 9)], [("IP", 0, 0)]]:
        with pytest.raises(ValueError, match="does not fit"):
            apply("short", wrong)


fragments = st.lists(st.one_of(
    st.sampled_from(list(VALUES.values())),
    st.sampled_from(["+1 212 555 0123", "646-555-0199", "2125550123", "call ", "@", " ", "", "-", ".", "/", "8.8.8.8",
                     "<EMAIL>",
                     "-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----", "é", "🙂", "=", "token=", "\n",
                     "ext. 5"]),
    st.text(string.digits + " .-+()@:a", max_size=24)), max_size=14)


@settings(max_examples=150, deadline=None)
@given(fragments)
def test_spans_are_sorted_disjoint_and_an_applied_text_holds_nothing_more(pieces):
    text = "".join(pieces)
    found = find([text])[0]
    end = 0
    for kind, offset, length, _ in found:
        assert kind in TYPES and offset >= end and length > 0
        end = offset + length
    assert end <= len(text)
    scrubbed = apply(text, found)
    assert find([scrubbed]) == [[]]


@settings(max_examples=40, deadline=None)
@given(st.lists(fragments, max_size=6))
def test_a_document_does_not_depend_on_its_neighbours(documents):
    texts = ["".join(pieces) for pieces in documents]
    together = find(pa.chunked_array([texts], pa.string()))
    assert together == [find([text])[0] for text in texts]


@settings(max_examples=150, deadline=None)
@given(fragments)
@example(["AIza_", VALUES["CRYPTO"]])
@example(["x_", VALUES["IBAN"].replace(" ", "").lower()])
def test_gates_let_every_find_through(pieces):
    import pyarrow.compute as pc
    text = "".join(pieces)
    for finder in FINDERS:
        if any(kind in finder.types for kind, _, _ in finder.find(text, EVERYTHING)):
            assert pc.match_substring_regex(pa.array([text]), finder.gate)[0].as_py()


@given(st.text(string.digits, min_size=1, max_size=18), st.integers(0, 17), st.integers(1, 9))
def test_luhn_sees_every_changed_digit(body, place, change):
    whole = next(body + digit for digit in string.digits if luhn(body + digit))
    place %= len(whole)
    assert not luhn(whole[:place] + str((int(whole[place]) + change) % 10) + whole[place + 1:])


@pytest.mark.parametrize("number, valid", [
    ("4111111111111111", True), ("5555555555554444", True), ("2221000000000009", True), ("378282246310005", True),
    ("30569309025904", True), ("6011111111111117", True), ("3530111333300000", True), ("6759649826438453", True),
    ("4111111111111112", False), ("1111111111111117", False), ("411111111111116", False), ("2720999999999996", True),
    ("2721000000000004", False), ("79927398713", False)])
def test_cards(number, valid):
    assert is_card(number) is valid


@pytest.mark.parametrize("number, valid", [
    ("DE89370400440532013000", True), ("GB82WEST12345698765432", True), ("NO9386011117947", True),
    ("BE68539007547034", True),
    ("MT84MALT011000012345MTLCAST001S", True), ("DE89370400440532013001", False), ("DE8937040044053201300", False),
    ("GB82WEST12345698765423", False), ("ZZ89370400440532013000", False), ("", False)])
def test_ibans(number, valid):
    assert is_iban(number) is valid


@pytest.mark.parametrize("text, public", [
    ("8.8.8.8", True), ("2606:4700:4700::1111", True), ("10.0.0.1", False), ("192.0.2.1", False), ("224.0.0.1", False),
    ("169.254.1.1", False), ("2001:db8::1", False), ("fe80::1", False), ("a::b", False), ("1.2.3", False),
    ("100.64.0.1", False)])
def test_public_addresses(text, public):
    assert is_public_ip(text) is public


@pytest.mark.parametrize("unit", [
    "1", "1 ", "@", "a", "a@", "a.", "a@a.", "1.", "1:", ":", "2000:", "+",
    "(", "+1", "eyJ", "eyJa.", "eyJaaaaaaaaaaaa.", "AKIA",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-", "A", "DE89", "DE89 ", "token=", "token", "password:a",
    "0 (", "212 555 0123 ",
    "4111 1111 ", "ext ", "x1", " ", "ghp_a", "xoxb-1", "a@a.aa", "%", "hooks.slack.com/services/"])
def test_hostile_repetition_comes_to_an_end(unit):
    """100 kB of what could make a pattern go back and forth; more than linear time would take minutes here."""
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    for finder in FINDERS:
        for _, start, end in finder.find(text, EVERYTHING):
            assert 0 <= start < end <= len(text)
