"""Text that was decoded twice is mended; honest text of any language is not touched."""

import ftfy.bad_codecs  # noqa: F401  registers the sloppy code pages
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract import mojibake
from tasks.extract.content import clean
from tasks.extract.mojibake import repair

HONEST = [
    "The miller’s tale – “grist for the mill” – costs £5 or €6… naïve, façade, Zoë, 20 °C ± 1, ½ cup, § 4.",
    "Große Mühlen mahlen langsam: „Äpfel“, »Öl« und ›Übermut‹ für 3 €; STRASSE, GRÖSSE, Maß, ‚Ärger‘.",
    "LE CAFÉ» ET L’ÉTÉ», À «L’ÎLE», où ça? C’est à côté: œuvre, cœur, Noël, aiguë; CRÉÉE – créée.",
    "El señor comió ¿qué? ¡Ñandú! AÑO° 1º 2ª, pingüino; São João, coração, ÇA, ação, MAÇÃ, Âmbar sós.",
    "Îl știe că țara însăși își așteaptă câinii; Ő és Ű, hűtő, árvíztűrő tükörfúrógép; ŽLUŤOUČKÝ KŮŇ.",
    "Het is één zaak; hún ‘tële’; Ærø, Ålesund, smørrebrød; Þetta er ágætt, Ísland; Äänekoski, Öö, jäääär.",
    "Мельница у реки мелет зерно. СССР, РСФСР, «Слово» — это «С° и Р»; Ёлка, объём, її, ґанок, Ў, Њ, Ћ.",
    "Ο μύλος δίπλα στο ποτάμι. Γιά σου! ΓΆΜΟΣ, Ώρα; ΰ ΐ — «Γ» – ΓΗ.",
    "טחנת הקמח על הנהר · طاحونة على النهر، «دقيق» · آسیاب می‌خواهم · นี่คือโรงสี · ដើរ · မြန်မာ · தமிழ் நாடு",
    "川のそばの水車、『穀物』を挽く。製粉所—河邊“磨坊”… 방앗간 «밀» Đường phố Việt Nam, Ấm, Ừ, Ỡ; Ÿ, Œ, √2 ¬p, ∂x",
    "┌──┬──┐ │ ├ ü? ╨ ╤ ┴ ─┼─ ▓▒░ 100‰ ‡ † — –Ä– ﷼ ½ × 3² ÷ 4 = µm ¶ ß¹ ™® © 2020 «» ¤ ¦ ¯ ´ ¸",
]
DAMAGED = ["Große Mühlen mahlen langsam über Öl und Käse", "L’été à côté, “déjà vu” — où ça ?",
           "señor, mañana, corazón",
           "Příliš žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń", "Мельница у реки мелет зерно с давних времён",
           "«Слово» – не воробей, вылетит — не поймаешь"]


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_stays(text):
    assert repair(text) == text and repair(text.upper()) == text.upper()


_words = st.sampled_from([word for text in HONEST for word in text.split()])


@given(st.lists(st.tuples(_words, st.sampled_from([" ", "\n", " – ", "\xa0", ", ", "» «", "/"])), max_size=12))
def test_honest_words_in_any_order_stay(pieces):
    text = "".join(word + between for word, between in pieces)
    assert repair(text) == text


@pytest.mark.parametrize("code_page", ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "macroman"])
@pytest.mark.parametrize("text", DAMAGED)
def test_what_was_decoded_twice_is_mended(text, code_page):
    if code_page == "sloppy-windows-1251" and not any("а" <= c <= "я" for c in text):
        pytest.skip("Latin letters read as windows-1251 are not looked for")
    if code_page == "macroman" and "ц" in text:
        pytest.skip("ftfy knows no Cyrillic read as Mac Roman")
    honest = "An honest line – with “quotes” and É»."
    assert repair(f"{honest}\n{text.encode().decode(code_page)}\n{honest}") == f"{honest}\n{text}\n{honest}"


def test_ftfy_sees_only_lines_with_a_sign(monkeypatch):
    seen = []
    monkeypatch.setattr("ftfy.fix_encoding", lambda line: seen.append(line) or line)
    repair("plain\nÃ©tÃ© here\nété and “quotes”\nнет")
    assert seen == ["Ã©tÃ© here"]


def test_cleaning_mends_before_controls_go():
    assert clean("It\xe2\x80\x99s a caf\xc3\xa9") == "It’s a café"
    assert clean("caf\xc3\u200b\xa9 \xc3\x81rbol") == "café Árbol"


def calls(monkeypatch, repaired=lambda line: line):
    seen = []
    monkeypatch.setattr("ftfy.fix_encoding", lambda line: seen.append(line) or repaired(line))
    return seen


def test_a_line_that_comes_again_is_tried_once(monkeypatch):
    seen = calls(monkeypatch)
    text = "\n".join(["É» x"] * 8000)
    assert clean(text) == text and seen == ["É» x"]


def test_lines_that_stay_as_they_are_end_the_search(monkeypatch):
    seen = calls(monkeypatch)
    text = "\n".join(f"É» {n}" for n in range(8000))
    assert clean(text) == text and len(seen) == mojibake.MAX_IN_VAIN
    seen.clear()
    assert clean(text + " \n\n\n\nx") == text + "\n\nx"  # what was tidied is looked at again
    assert len(seen) == 2 * mojibake.MAX_IN_VAIN


def test_lines_that_are_mended_do_not_end_the_search(monkeypatch):
    seen = calls(monkeypatch, lambda line: line.replace("Ã©", "é"))
    text = "\n".join(f"Ã©t {n}" for n in range(3 * mojibake.MAX_IN_VAIN))
    assert clean(text) == text.replace("Ã©", "é") and len(seen) == 3 * mojibake.MAX_IN_VAIN


@given(st.lists(st.sampled_from(["É» a", "É» b", "É» c", "Ã©tÃ©", "caf\xc3\u200b\xa9", "Ã\x83Â©tÃ© É»", "", "x\x85Ã©"]),
                max_size=12), st.integers(1, 4))
def test_cleaning_is_final_wherever_the_search_ends(lines, bound):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mojibake, "MAX_IN_VAIN", bound)
        cleaned = clean("\n".join(lines))
        assert clean(cleaned) == cleaned
