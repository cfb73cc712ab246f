"""What a word is, and the hashes that stand for words and shingles.

A word is a maximal run of Unicode letters, digits and marks (categories L*, N*, M*; a mark starts no
word) with these additions, after Unicode's default word boundaries (UAX #29, rules WB4 to WB7, WB11,
WB12, https://www.unicode.org/reports/tr29/):

- an apostrophe (' or U+2019) between two letters belongs to the word: "don't" is one;
- a full stop or comma between two digits belongs to the word: "1,000" and "3.14" are one each;
- format characters (category Cf: soft hyphen, joiners) inside a word are as if not there, except the
  zero-width space, which separates;
- scripts that put no spaces between words (Han, kana, Bopomofo, Yi, Thai, Lao, Khmer, Myanmar, Tai; UNSPACED): a run
  of their letters, with the marks that follow them, is divided by a dictionary as `tasks.annotate.segment` says; what
  is in no dictionary is a word by letters with their marks, in Thai, Lao, Khmer and Burmese by stretches of them.

Everything else separates, the underscore and the hyphen too. Words are compared by their case-folded form
(one code point to one code point; U+2019 counts as '), so "The" and "the" are the same word; nothing
else is normalised, and numbers stay the numbers they are. A word's length counts code points.

The tables come from the `unicodedata` of the running Python.
"""

import sys
import unicodedata
from functools import lru_cache

import numpy as np

from tasks.mapped import mapped

# Classes of code points; the kernel knows them by these values.
OTHER, LETTER, DIGIT, MARK, SINGLE, FORMAT, SPACE, TERMINAL, CLOSING, BULLET = range(10)
CLASS_SHIFT = 21             # code points need 21 bits; the class lies above

# First and last code point of scripts written without spaces between words.
UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
            (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x303C), (0x3041, 0x3130), (0x31A0, 0x31BF),
            (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48F), (0xA9E0, 0xA9FF), (0xAA60, 0xAADF),
            (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x1AFF0, 0x1B16F), (0x20000, 0x323AF))
TERMINALS = ".!?…‼⁇⁈⁉。！？｡．।॥؟۔։።፧၊။។៕᙮᠃᠉"
CLOSINGS = "\"'”’»›)]}」』）】》〉*_"
BULLETS = "-•‣▶◀◦■□▪▫●○·–"     # RedPajama-V2's list, the hyphen (datatrove) and round ones; `*` is tested by itself
_NAMED = {char: kind for kind, chars in ((BULLET, BULLETS), (CLOSING, CLOSINGS), (TERMINAL, TERMINALS))
          for char in chars}
LAST_ASSIGNED = 0x33480      # beyond lie only variation selectors, tags and private use

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")           # Gopher, table A1
# C4 removes a line that holds one of these (Raffel et al. 2020, section 2.2; the phrases are those of its code in
# tensorflow/datasets), and a document that holds "lorem ipsum".
POLICY_PHRASES = (("terms", "of", "use"), ("privacy", "policy"), ("cookie", "policy"), ("uses", "cookies"),
                  ("use", "of", "cookies"), ("use", "cookies"))

MASK = (1 << 64) - 1
FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
GRAM_BASE = 0x9E3779B97F4A7C15   # odd: multiplication by it loses nothing modulo 2**64


def code_points() -> np.ndarray:
    """int32 table of 0x110000 entries: class << 21 | case-folded code point."""
    return _tables()[0]


def capitals() -> np.ndarray:
    """uint8 table of 0x110000 entries: 1 for upper-case letters (category Lu and what else Python calls upper)."""
    return _tables()[1]


@mapped(libraries=("unicodedata",))
def _tables() -> tuple[np.ndarray, np.ndarray]:
    table, upper = np.arange(0x110000, dtype=np.int32), np.zeros(0x110000, dtype=np.uint8)
    unspaced = np.zeros(0x110000, dtype=bool)
    for first, last in UNSPACED:
        unspaced[first:last + 1] = True
    for point in (*range(LAST_ASSIGNED), *range(0xE0000, 0xE01F0)):
        char, category = chr(point), unicodedata.category(chr(point))
        kind = _character_class(char, category, bool(unspaced[point]))
        if kind:
            table[point] = kind << CLASS_SHIFT | (point if category == "Lo" else ord(fold(char)))
    upper[[point for point in range(LAST_ASSIGNED) if chr(point).isupper()]] = 1
    return table, upper


def _character_class(char: str, category: str, unspaced: bool) -> int:
    if category == "Lo":     # most of them all
        return SINGLE if unspaced else LETTER
    if char in _NAMED:
        return _NAMED[char]
    if char.isspace():
        return SPACE
    if category == "Cf":
        return OTHER if char == "\u200b" else FORMAT
    if category[0] == "L" or category == "Nl" and unspaced:  # 〇 and the Suzhou numerals are ideographs
        return SINGLE if unspaced else LETTER
    return {"N": DIGIT, "M": MARK}.get(category[0], OTHER)


def fold(char: str) -> str:
    """The case-folded form of one character, where that is one character."""
    if char == "\u2019":
        return "'"
    return next((form for form in (char.casefold(), char.lower()) if len(form) == 1), char)


def fmix64(h: int) -> int:
    """MurmurHash3's 64-bit finaliser (Appleby 2011): a bijection in which every bit hangs on every bit."""
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def word_hash(word: str) -> int:
    """64-bit hash of a folded word: FNV-1a over its code points, then fmix64."""
    h = FNV_OFFSET
    for char in word:
        h = (h ^ ord(char)) * FNV_PRIME & MASK
    return fmix64(h)


def gram_hash(words) -> int:
    """64-bit hash of a sequence of folded words: the polynomial of their hashes in GRAM_BASE, modulo 2**64."""
    h = 0
    for word in words:
        h = (h * GRAM_BASE + word_hash(word)) & MASK
    return h


@lru_cache(maxsize=1)
def landmarks() -> np.ndarray:
    """uint64: hashes of the stop words (8), `javascript`, `lorem ipsum`, the two-word policy phrases (4) and the
    three-word ones (2), in that order, which is the kernel's."""
    two = [gram_hash(p) for p in POLICY_PHRASES if len(p) == 2]
    three = [gram_hash(p) for p in POLICY_PHRASES if len(p) == 3]
    assert (len(STOP_WORDS), len(two), len(three)) == (8, 4, 2), "the kernel counts on these"
    return np.array([*map(word_hash, STOP_WORDS), word_hash("javascript"), gram_hash(("lorem", "ipsum")), *two, *three],
                    dtype=np.uint64)


@lru_cache(maxsize=1)
def enders() -> np.ndarray:
    """bool of shape (1024,): whether a word whose hash has these low ten bits may be or end one of the landmarks."""
    table = np.zeros(1024, np.bool_)
    for word in (*STOP_WORDS, "javascript", "ipsum", *(phrase[-1] for phrase in POLICY_PHRASES)):
        table[word_hash(word) & 1023] = True
    table.setflags(write=False)
    return table


def words(text: str) -> list[str]:
    """The folded words of a text, as the kernel sees them; for tests and for looking, a hundred times slower."""
    from tasks.annotate.segment import dictionary, word_starts

    table = code_points()
    data = text.encode("utf-8", "replace")
    text = data.decode()
    begins = np.empty(len(data) // 3 + 1, np.int64)
    offsets = np.array([0, len(data)])
    offsets.setflags(write=False)
    begins = begins[:word_starts(np.frombuffer(data, np.uint8), offsets, table, *dictionary(), begins)]
    places = np.cumsum([0, *(len(char.encode()) for char in text)])
    begins = set(np.searchsorted(places, begins).tolist())
    packed = table[np.frombuffer(text.encode("utf-32-" + sys.byteorder[0] + "e", "replace"), dtype=np.uint32)]
    kinds = (packed >> CLASS_SHIFT).tolist() + [OTHER]
    forms = [chr(point) for point in (packed & ((1 << CLASS_SHIFT) - 1)).tolist()]
    found, word, single, last = [], [], False, OTHER
    for i, form in enumerate(forms):
        kind, following = kinds[i], kinds[i + 1]
        if word:
            if kind == FORMAT:
                continue
            if (kind == MARK or (kind in (LETTER, DIGIT) and not single)
                    or (kind == SINGLE and single and i not in begins)
                    or (form == "'" and last == LETTER == following)
                    or (form in ".," and last == DIGIT == following)):
                word.append(form)
                last = kind if kind in (LETTER, DIGIT) else last
                continue
            found.append("".join(word))
            word = []
        if kind in (LETTER, DIGIT, SINGLE):
            word, single, last = [form], kind == SINGLE, kind
    return found + ["".join(word)] if word else found
