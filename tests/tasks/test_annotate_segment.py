"""Words of scripts without spaces: against a plain second implementation, and sentences that anyone can divide."""

import lzma
import struct
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.annotate import segment
from tasks.annotate.dictionary.build import pack
from tasks.annotate.lexicon import UNSPACED
from tasks.words import CLASS_SHIFT, FORMAT, MARK, SINGLE, code_points, words


def unpacked(data: bytes) -> dict[str, int]:
    raw = lzma.decompress(data)
    n = struct.unpack_from("<I", raw)[0]
    shared, added, costs = raw[4:4 + n], raw[4 + n:4 + 2 * n], raw[4 + 2 * n:4 + 3 * n]
    letters = raw[4 + 3 * n:].decode("utf-16-le")
    found, word, at = {}, "", 0
    for keep, more, cost in zip(shared, added, costs, strict=True):
        word = word[:keep] + letters[at:at + more]
        at += more
        found[word] = cost
    return found


@lru_cache(maxsize=1)
def entries() -> dict[str, int]:
    return unpacked(segment.DICTIONARY.read_bytes())


def kind(char: str) -> int:
    return int(code_points()[ord(char)]) >> CLASS_SHIFT


def grouped(char: str) -> bool:
    return "\u0e00" <= char < "\u0f00" or "\u1000" <= char < "\u10a0" or "\u1780" <= char < "\u1800"


def katakana(char: str) -> bool:
    return "\u30a1" <= char <= "\u30fa" or "\u30fc" <= char <= "\u30fe" or "\u31f0" <= char <= "\u31ff" \
        or "\uff66" <= char <= "\uff9f"


def may_begin(run: str, i: int) -> bool:
    if i in (0, len(run)):
        return True
    char, before, after = run[i], run[i - 1], run[i + 1] if i + 1 < len(run) else ""
    if kind(char) == MARK:
        return False
    if char in "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3\u0ec5":
        return False
    if "\u0e00" <= char < "\u0f00" and before in "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4":
        return False
    if "\u0e00" <= char < "\u0f00":
        return True
    return char >= "\u2e80" or (before not in "\u17d2\u1039" and after not in ("\u1039", "\u103a"))


def naive_division(run: str) -> list[str]:
    """The division of a run that costs least, of all that there are (ties: the last word as long as can be)."""
    n = len(run)
    best: list[tuple[int, int, bool] | None] = [(0, 0, False)] + [None] * n      # cost, beginning, unknown
    for end in range(1, n + 1):
        if not may_begin(run, end):
            continue
        choices = []
        for begin in range(end):
            if best[begin] is None or not may_begin(run, begin):
                continue
            cost, piece = best[begin][0], run[begin:end]
            if piece in entries():
                choices.append((cost + entries()[piece], begin, 0, False))
            one_cluster = not any(may_begin(run, i) for i in range(begin + 1, end))
            if one_cluster and not (run[begin] in entries() and may_begin(run, begin + 1)):
                choices.append((cost + (segment.UNKNOWN if grouped(run[begin]) else segment.ALONE), begin, 1, True))
            stretch = katakana(run[begin]) and not (begin and katakana(run[begin - 1]))
            if stretch and all(katakana(run[i]) or not may_begin(run, i) for i in range(begin + 1, end)) and (
                    end == n or not katakana(run[end])):
                choices.append((cost + int(segment.KATAKANA[min(end - begin, 8)]), begin, 2, False))
        if choices:
            cost, begin, _, unknown = min(choices)
            best[end] = cost, begin, unknown
    pieces, end = [], n
    while end:
        _, begin, unknown = best[end]
        pieces.append((run[begin:end], unknown))
        end = begin
    pieces.reverse()
    found = []
    for i, (piece, unknown) in enumerate(pieces):
        if i and unknown and pieces[i - 1][1] and grouped(piece[0]) and grouped(pieces[i - 1][0][-1]):
            found[-1] += piece
        else:
            found.append(piece)
    return found


def divided(text: str) -> list[str]:
    data = text.encode()
    begins = np.empty(len(data) // 3 + 1, np.int64)
    offsets = np.array([0, len(data)])
    n = segment.word_starts(np.frombuffer(data, np.uint8), offsets, code_points(), *segment.dictionary(), begins)
    cuts = [0, *begins[:n].tolist(), len(data)]
    return [data[i:j].decode() for i, j in zip(cuts, cuts[1:], strict=False)]


SENTENCES = ["日本語の文章を分割しますコンピューターを使う東京都に住んでいます",
             "我来到北京清华大学研究生命起源乒乓球拍卖完了",
             "ฉันรักภาษาไทยเพราะฉันเป็นคนไทยที่นี่", "ភាសាខ្មែរជាភាសាផ្លូវការ", "ພາສາລາວແມ່ນພາສາທາງການ",
             "မြန်မာဘာသာစကားသည်တရားဝင်ဘာသာ", "ㄅㄆㄇꀀꀁ𠀀々〇ｱｲ゙"]
RUNS = st.lists(st.one_of(
    st.sampled_from("".join(SENTENCES)).filter(lambda c: kind(c) in (SINGLE, MARK)),
    st.sampled_from([SENTENCES[k][i:i + 5] for k in range(7) for i in range(0, len(SENTENCES[k]), 3)])),
    min_size=1, max_size=14).map("".join).filter(lambda run: run and kind(run[0]) == SINGLE)


@given(RUNS)
@settings(max_examples=250, deadline=None)
def test_equal_to_the_naive_division(run):
    assert divided(run) == naive_division(run)


@pytest.mark.parametrize(("sentence", "expected"), [
    ("我来到北京清华大学", "我 来到 北京 清华大学"),
    ("研究生命起源", "研究 生命 起源"),
    ("今日は東京に行きます", "今日 は 東京 に 行き ます"),
    ("コンピューターを使う", "コンピューター を 使う"),
    ("ヌメロポヂヌを使う", "ヌメロポヂヌ を 使う"),                        # katakana that no dictionary knows
    ("ฉันเป็นคนไทย", "ฉัน เป็น คน ไทย"),
    ("ພາສາລາວແມ່ນພາສາທາງການ", "ພາສາ ລາວ ແມ່ນ ພາສາ ທາງການ"),
    ("ទៅ\u200bផ្ទះ", "ទៅ ផ្ទះ"),                                         # the zero-width space separates
    ("清华\u200d大学", "清华大学"),                                       # other format characters do not
    ("𠀀𠀁", "𠀀 𠀁"),
    ("ꀀꀁ", "ꀀ ꀁ"),
    ("二〇〇一年", "二 〇〇 一年"),
    ("㐀abc㐁", "㐀 abc 㐁"),
])
def test_sentences(sentence, expected):
    assert words(sentence) == expected.split()


def test_function_words_are_words():
    for code, listed in UNSPACED.items():
        for word in listed:
            assert words(word) == [word], (code, word)


def test_runs_end_where_documents_do():
    texts = ["清", "华大学", "", "ไท", "ย"]
    data = "".join(texts).encode()
    offsets = np.cumsum([0, *(len(text.encode()) for text in texts)])
    begins = np.empty(len(data), np.int64)
    n = segment.word_starts(np.frombuffer(data, np.uint8), offsets, code_points(), *segment.dictionary(), begins)
    assert begins[:n].tolist() == [6]                       # 华 大学: nothing before and after sees its neighbours


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_within_their_bounds(data):
    begins = np.full(len(data) // 3 + 2, -1, np.int64)
    n = segment.word_starts(np.frombuffer(data, np.uint8), np.array([0, len(data)]), code_points(),
                            *segment.dictionary(), begins)
    assert n <= len(data) // 3 and begins[-1] == -1
    assert (np.diff(begins[:n]) > 0).all() and (not n or 0 < begins[0] and begins[n - 1] < len(data))


def test_the_dictionary_is_what_its_build_packs():
    listed = {"ab": 3, "abc": 254, "b": 1, "漢字": 77}
    assert unpacked(pack(listed)) == listed
    table, singles = segment.dictionary()
    words_in = int(((table & np.uint64(0xFF)) != 0).sum())
    assert words_in == len(entries()) == 495_045            # no two prefixes share a slot's identity
    assert all(0 < cost < 255 for cost in entries().values())
    assert singles[ord("的")] & 0xFF == entries()["的"]
    assert kind("\u200d") == FORMAT
