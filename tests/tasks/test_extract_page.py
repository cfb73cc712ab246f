"""What is made of one page: its charset, its cost, its text, its rights."""

import codecs
import gzip
import random
import unicodedata
import zlib

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract.codings import Expansion, Undecodable, dechunk, decompress
from tasks.extract.content import clean, main_text, measure
from tasks.extract.decode import codec, decode_text

WORDS = "Große Mühlen mahlen langsam, œuvre à côté, señor, größer als früher und schöner über Öl"
RUSSIAN = "Мельница у реки мелет зерно с давних времён, и мельник рассказывает истории вместо работы. " * 3
JAPANESE = "川のそばの水車は昔から穀物を挽いてきました。夏には水が少なくなります。" * 3

CHINESE = "河邊的水車自古以來磨穀物。".translate(str.maketrans("邊車來穀", "边车来谷")) * 3
KOREAN = "강가의 물레방아는 예로부터 곡식을 빻아 왔다. 여름에는 물이 적다. " * 3


@pytest.mark.parametrize(("text", "encoding", "declared", "found"), [
    (WORDS, "utf-8", None, "utf-8"),
    (WORDS, "utf-8", "iso-8859-1", "utf-8"),            # a server's wrong default
    (WORDS, "cp1252", "ISO-8859-1", "cp1252"),          # WHATWG: the label means windows-1252
    (WORDS, "cp1252", "utf-8", "cp1252"),
    (RUSSIAN, "cp1251", "windows-1251", "cp1251"),
    (RUSSIAN, "koi8-r", None, "koi8-r"),
    (RUSSIAN, "cp1251", "x-unknown", "cp1251"),
    (JAPANESE, "cp932", "Shift_JIS", "cp932"),
    (JAPANESE, "euc_jp", None, "euc_jp"),
    (JAPANESE, "iso2022_jp", "iso-2022-jp", "iso2022_jp"),
    (JAPANESE, "utf-16-le", "utf-16", "utf-16-le"),
    ("<html><p>" + WORDS, "utf-16-be", None, "utf-16-be"),
    ("<html><p>" + WORDS, "utf-16-le", None, "utf-16-le"),
    ("plain ASCII text, as UTF-16 without a mark", "utf-16-be", None, "utf-16-be"),
    (WORDS, "utf-32-le", None, "utf-32-le"),
    (RUSSIAN, "cp1251", "iso-8859-1", "cp1251"),        # Apache's default over another script
    (RUSSIAN, "mac-cyrillic", "x-mac-cyrillic", "mac-cyrillic"),
    (RUSSIAN, "cp855", None, "cp855"),
    (JAPANESE, "cp932", "latin1", "cp932"),
    ("①㈱ " + JAPANESE, "euc_jis_2004", "euc-jp", "euc_jis_2004"),   # NEC's row 13
    (CHINESE, "gb18030", None, "gb18030"),
    (CHINESE, "hz", None, "hz"),
    (KOREAN, "iso2022_kr", "iso-2022-kr", "iso2022_kr"),
    (KOREAN, "johab", None, "johab"),
    ("a ~{ b ~} in a program", "ascii", None, "utf-8"),
    ("plain ASCII", "ascii", "gibberish", "utf-8"),
    ("", "utf-8", None, "utf-8"),
])
def test_charsets(text, encoding, declared, found):
    assert decode_text(text.encode(encoding), declared) == (text, found) or codecs.lookup(found) == codecs.lookup(
        decode_text(text.encode(encoding), declared)[1])
    assert decode_text(text.encode(encoding), declared)[0] == text


def test_spaces_that_do_not_break_are_no_other_script():
    text = "<p>" + "\xa0" * 200 + "caf\xe9 cr\xe8me</p>"
    assert decode_text(text.encode("latin-1"), "iso-8859-1") == (text, "cp1252")


def test_a_sample_is_taken_where_the_letters_are():
    text = "<!-- markup -->" * 20_000 + RUSSIAN
    assert decode_text(text.encode("koi8-r")) == (text, "koi8-r")


def test_a_byte_order_mark_wins():
    assert decode_text(codecs.BOM_UTF32_LE + WORDS.encode("utf-32-le")) == (WORDS, "utf-32-le")
    assert decode_text(codecs.BOM_UTF8 + WORDS.encode(), "windows-1251") == (WORDS, "utf-8")
    assert decode_text(codecs.BOM_UTF16_LE + WORDS.encode("utf-16-le"), "utf-8") == (WORDS, "utf-16-le")


def test_a_byte_order_mark_that_the_bytes_belie():
    assert decode_text(codecs.BOM_UTF8 + WORDS.encode("cp1252"), "utf-8") == (WORDS, "cp1252")
    with pytest.raises(Undecodable):
        decode_text(codecs.BOM_UTF16_LE + random.Random(1).randbytes(5000))
    broken = codecs.BOM_UTF8 + b"x" * 500 + b"\xe2\x82" + b"y" * 500
    assert decode_text(broken, "windows-1251") == ("x" * 500 + "\ufffd" + "y" * 500, "utf-8")


@pytest.mark.parametrize(("text", "encoding"), [
    (RUSSIAN, "cp1251"), ("<html><body class=page><p>" + RUSSIAN[:60] + "</p></body></html> " * 20, "cp1251"),
    ("<p>plain words and more plain words</p>\n" * 9, "ascii"), ("<p>" + WORDS, "cp1252"), (RUSSIAN, "utf-8"),
])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_mark_of_utf_16_before_other_text(mark, text, encoding):
    assert decode_text(mark + text.encode(encoding), encoding)[0] == text


@pytest.mark.parametrize("text", [JAPANESE, CHINESE, KOREAN, "水車", RUSSIAN, "<p>x</p>", "AB", "\ue000 icon " * 9, ""])
def test_a_mark_of_utf_16_before_utf_16(text):
    assert decode_text(codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "cp1251") == (text, "utf-16-le")
    assert decode_text(codecs.BOM_UTF16_BE + text.encode("utf-16-be")) == (text, "utf-16-be")


@pytest.mark.parametrize("meta", ['<meta charset="windows-1251">', "<META content='text/html; charset=CP1251' name=x>",
                                  '<?xml version="1.0" encoding="windows-1251"?>'])
def test_a_meta_element_declares(meta):
    text = meta + "<p>Да</p>"
    assert decode_text(text.encode("cp1251")) == (text, "cp1251")


def test_the_header_comes_before_the_meta_element():
    text = '<meta charset="koi8-r"><p>Да</p>'
    assert decode_text(text.encode("cp1251"), "windows-1251") == (text, "cp1251")


def test_a_few_broken_bytes_do_not_cost_the_page():
    body = ("x" * 500).encode() + b"\xe2\x82" + b"y" * 500
    text, name = decode_text(body, "utf-8")
    assert name == "utf-8" and text.count("\ufffd") == 1


def test_a_latin_1_page_with_few_accents_that_claims_to_be_utf_8_keeps_them():
    text = "<p>" + "plain words and more plain words " * 40 + "café crème à la carte</p>"
    assert decode_text(text.encode("latin-1"), "utf-8")[0] == text


def test_what_no_encoding_fits():
    with pytest.raises(Undecodable):
        decode_text(bytes(range(0x80, 0x100)) * 20, "utf-8")


@given(st.binary(max_size=300),
       st.sampled_from([None, "utf-8", "gbk", "big5", "euc-jp", "iso-2022-jp", "x", "utf-16", "hz"]))
def test_decoding_raises_nothing_else(body, declared):
    try:
        text, name = decode_text(body, declared)
    except Undecodable as undecodable:
        assert 0 < undecodable.args[0] <= 1
    else:
        assert codecs.lookup(name) and isinstance(text, str)


def test_labels_are_whatwg_ones():
    assert codec("utf-7") is None and codec("cp037") is None and codec("win\0") is None
    assert codec(" UTF8 ") == "utf-8" and codec('"latin1"') == "cp1252" and codec("gb2312") == "gb18030"
    assert codec("rot13") is None and codec("idna") is None and codec("zlib") is None and codec("") is None


@given(st.binary(max_size=400), st.integers(1, 60))
def test_dechunk_undoes_chunking(body, size):
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    framed = b"".join(b"%X\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\nTrailer: x\r\n\r\n"
    assert dechunk(framed) == (body if body else framed)


def test_dechunk_leaves_what_is_not_chunked():
    assert dechunk(b"<html>not chunked</html>") == b"<html>not chunked</html>"
    assert dechunk(b"5\r\nhello\r\n20\r\ncut off") == b"hellocut off"
    assert dechunk(b"0\r\n\r\n") == b""


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip, br", "x"]))
def test_decompress_raises_nothing_else(body, codings):
    try:
        assert len(decompress(body, codings, 1 << 16)) <= 1 << 16
    except Undecodable:
        pass


_CHANCE = random.Random(3)
LONG = "".join(f"<p>{n} {_CHANCE.choice(WORDS.split())} {_CHANCE.randrange(1 << 30)}\n" for n in range(30_000)).encode()
SHORT = LONG[:40_000]
CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda data: brotli.compress(data, quality=5),
           "zstd": zstd.compress}


@pytest.mark.parametrize("whole", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("coding", CODINGS)
def test_what_came_before_a_cut(coding, whole):
    body = CODINGS[coding](whole)
    # zstd's blocks have up to 128 KiB of data, and come out whole or not at all
    lost = 128 << 10 if coding == "zstd" else 8 << 10
    for share in (0.5, 0.9, 0.999):
        if len(whole) > lost:
            data = decompress(body[:int(share * len(body))], coding, 1 << 24)
            assert whole.startswith(data) and len(data) > (share - 0.05) * len(whole) - lost


@pytest.mark.parametrize("coding", CODINGS)
def test_what_came_before_a_corrupt_place(coding):
    body = CODINGS[coding](LONG)
    damaged = body[:len(body) * 3 // 4] + b"\xff" * 2000 + body[len(body) * 3 // 4 + 2000:]
    data = decompress(damaged, coding, 1 << 24)
    lost = 192 << 10 if coding == "zstd" else 48 << 10
    same = next((i for i, (a, b) in enumerate(zip(data, LONG, strict=False)) if a != b), len(data))
    assert same > 0.7 * len(LONG) - lost


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_small_body_with_a_corrupt_end_is_not_lost(coding):
    blocks = CODINGS[coding](b"".join(b"%d plain words\n" % (n % 7) for n in range(40_000)))
    assert len(blocks) < 16 << 10
    data = decompress(blocks[:-12] + b"\xff" * 12, coding, 1 << 24)
    assert data.startswith(b"0 plain words\n1 plain words\n")


@pytest.mark.parametrize("coding", CODINGS)
def test_inflated_bodies_are_bounded(coding):
    body = CODINGS[coding](bytes(5 << 20))
    assert decompress(body, coding, 5 << 20) == bytes(5 << 20)
    with pytest.raises(Expansion) as expansion:
        decompress(body, coding, (5 << 20) - 1)
    assert expansion.value.size == 5 << 20


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_and_frames_follow_each_other(coding):
    pack = CODINGS[coding]
    assert decompress(pack(SHORT) + pack(b"") + pack(LONG), coding, 1 << 24) == SHORT + LONG
    assert decompress(pack(SHORT) + b"\r\nmore", coding, 1 << 24) == SHORT
    assert decompress(pack(b""), coding, 10) == b""


@pytest.mark.parametrize(("html", "depth"), [
    ("<div><div></div><div></div></div>", 2),
    ("<p>a<p>b<p>c<li>d<li>e<br><img><hr>", 0),         # closed by the next, or void
    ("<!-- <div><div> --><div>", 1),
    ("<!-- <div><div> --!><div>", 1), ("<!----!><div>", 1), ("<!--!><div>", 0), ("<!---!><div>", 0),
    ("<!--><div>", 1), ("<!---><div>", 1), ("<!-- --!", 0), ("<!-- -!><div>", 0),
    ("<script>'<div><div><div>'</script><div>", 1),
    ("<SCRIPT>'<div></div></scrip>'</Script><Div>", 1),
    ("<b title='<b><b>'><b title=\"></b>\">", 2),
    ("<a>x<a>y<a>z", 1),                                 # a link ends where the next begins
    ("</div></div><div>", 1),
    ("<svg><path/><path/><g/></svg>", 1),
    ("<!doctype html><?xml x?><div>", 1),
    ("< div><3<div", 1),
    ("", 0), ("<", 0), ("</", 0), ("<a", 1), ("<!--", 0), ("<script>", 0),
])
def test_depth(html, depth):
    assert measure(html.encode()).depth == depth


def test_attributes_are_counted():
    assert measure(b"<div a b=1 c='2 3' d=\"x\" ><br/></div>").pairs == 16


@given(st.binary(max_size=300))
def test_measuring_reads_anything(html):
    cost = measure(html)
    assert 0 <= cost.depth <= len(html)


@given(st.text())
def test_clean_is_final(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned and unicodedata.is_normalized("NFC", cleaned)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in cleaned)
    assert "\r" not in cleaned and "\n\n\n" not in cleaned


def test_clean():
    assert clean("a\r\nb\rc\u2028d \n\n\n\ne\x00\u200b\ufeff\xadf") == "a\nb\nc\nd\n\nef"
    assert clean("Cafe\u0301") == "Café"
    assert clean("می\u200cخواهم 👩\u200d💻") == "می\u200cخواهم 👩\u200d💻"  # joiners carry meaning


def test_a_page_whose_main_text_is_missed_is_taken_whole():
    html = f"<body><div class='comment sidebar'>{'<span>A sentence that matters to the reader. </span>' * 50}</div>"
    assert main_text(html, engine="resiliparse", search=True, comments=False).text.count("matters") == 50


def test_title_is_one_line():
    page = main_text("<title> A\n  title\t</title><p>x", engine="resiliparse", search=True, comments=False)
    assert page.title == "A title"
