"""What the tokenizer knows of HTML: the elements, the character references, as flat tables for compiled code.

Sources: HTML Standard, https://html.spec.whatwg.org/multipage/ (13.1.2 void, raw text and optional tags; 13.2.5.80
character references; 13.2.6.5 foreign content; 15.3 rendering: which elements are blocks, which are not shown).
"""

import html.entities

import numpy as np

# Kinds of elements: bits of TAG_KINDS.
VOID, IMPLIED, RAW, FOREIGN, BREAKOUT, INLINE, SKIP, SCOPE, IGNORE, HEADING, CLOSES_P = (1 << n for n in range(11))

# What a block lies in: bits that elements hand down to all in them. MATH stays with its element.
(IN_NAV, IN_HEADER, IN_FOOTER, IN_ASIDE, IN_ARTICLE, IN_MAIN, IN_SECTION, IN_FORM, IN_TABLE, IN_CELL, IN_LIST, IN_ITEM,
 IN_FIGURE, IN_QUOTE, IN_PRE, IN_BUTTON, IN_DETAILS, IN_DEFINITIONS, IN_DIALOG, IN_HIDDEN, IN_ARIA_HIDDEN, IN_COMMENT,
 IN_CODE, IN_CONSENT, MATH) = (1 << n for n in range(25))

_VOID = "area base br col embed hr img input link meta param source track wbr"
# Closed by the next of their kind, so that leaving them open does not nest.
_IMPLIED = "p li dt dd option optgroup tr td th thead tbody tfoot colgroup caption rb rt rp html head body"
_RAW = "script style textarea title xmp iframe noembed noframes"
# These end SVG and MathML, in which alone <x/> closes itself (13.2.6.5).
_BREAKOUT = ("b big blockquote br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu "
             "meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var")
_INLINE = ("a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark nobr output q rb ruby "
           "s samp small span strike strong sub sup time tt u var wbr meter progress picture source math")
# Not shown as text.
_SKIP = "svg template select datalist video audio canvas object map rt rp"
_SCOPE = "table td th caption"
_IGNORE = "html head body"
_CLOSES_P = ("address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer form "
             "h1 h2 h3 h4 h5 h6 header hgroup hr main menu nav ol p pre search section summary table ul li dt dd xmp "
             "listing")
_OTHER = "tbody thead tfoot legend summary"
_CONTEXT = {"nav": IN_NAV, "header": IN_HEADER, "footer": IN_FOOTER, "aside": IN_ASIDE, "article": IN_ARTICLE,
            "main": IN_MAIN, "section": IN_SECTION, "form": IN_FORM, "table": IN_TABLE, "td": IN_CELL, "th": IN_CELL,
            "ul": IN_LIST, "ol": IN_LIST, "menu": IN_LIST, "li": IN_ITEM, "figure": IN_FIGURE, "figcaption": IN_FIGURE,
            "blockquote": IN_QUOTE, "pre": IN_PRE, "listing": IN_PRE, "button": IN_BUTTON, "details": IN_DETAILS,
            "dl": IN_DEFINITIONS, "dialog": IN_DIALOG, "code": IN_CODE,
            "noscript": IN_HIDDEN}  # where some sites keep all of a page, and most a picture
ROLES = {"navigation": IN_NAV, "banner": IN_HEADER, "contentinfo": IN_FOOTER, "complementary": IN_ASIDE,
         "article": IN_ARTICLE, "main": IN_MAIN, "search": IN_FORM, "form": IN_FORM, "button": IN_BUTTON,
         "dialog": IN_DIALOG, "alertdialog": IN_DIALOG, "menu": IN_NAV, "menubar": IN_NAV, "tablist": IN_NAV}
# Words of class and id that say a block is a reader's comment or a question of consent.
_WORDS = {IN_COMMENT: "comment comments commentlist commentarea disqus respond kommentare kommentar comentarios",
          IN_CONSENT: "cookie cookies consent gdpr cookiebanner cookieconsent onetrust cookiebot cmp",
          MATH: "math tex latex mwe"}

FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_MASK = (1 << 64) - 1


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bits, of a name in lower case (http://www.isthe.com/chongo/tech/comp/fnv/)."""
    h = FNV_OFFSET
    for byte in data.lower():
        h = (h ^ byte) * FNV_PRIME & _MASK
    return h


def slots(entries: dict[bytes, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys, values) of an open-addressed table of `size` (a power of two) slots; key 0 means empty.

    The slot of a hash is its bits 16 and up, and the next free one after it.
    """
    return hashed({fnv(name): value for name, value in entries.items()}, size)


def hashed(entries: dict[int, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """`slots` of names that are hashed already."""
    keys, values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    for h in sorted(entries):
        at = (h >> 16) & (size - 1)
        while keys[at]:
            at = (at + 1) & (size - 1)
        keys[at], values[at] = h, entries[h]
    return keys, values


def _elements() -> tuple[list[str], np.ndarray, np.ndarray]:
    kinds: dict[str, int] = {}
    for names, kind in ((_VOID, VOID), (_IMPLIED, IMPLIED), (_RAW, RAW), ("svg math", FOREIGN), (_BREAKOUT, BREAKOUT),
                        (_INLINE, INLINE), (_SKIP, SKIP), (_SCOPE, SCOPE), (_IGNORE, IGNORE),
                        ("h1 h2 h3 h4 h5 h6", HEADING), (_CLOSES_P, CLOSES_P), (_OTHER, 0), (" ".join(_CONTEXT), 0)):
        for name in names.split():
            kinds[name] = kinds.get(name, 0) | kind
    names = ["", *sorted(kinds)]
    return names, np.array([0, *(kinds[n] for n in names[1:])]), np.array([_CONTEXT.get(n, 0) for n in names])


TAGS, TAG_KINDS, TAG_CONTEXT = _elements()
TAG = {name: n for n, name in enumerate(TAGS)}
# XML's names for MathML, as publishers of journals leave them in HTML.
ALIASES = {"mml:math": "math", "m:math": "math"}
TAG_KEYS, TAG_VALUES = slots({name.encode(): n for name, n in TAG.items() if name}
                             | {name.encode(): TAG[other] for name, other in ALIASES.items()}, 1024)

ATTRIBUTES = {name: n for n, name in enumerate(
    ["", "class", "id", "role", "style", "hidden", "aria-hidden", "alt", "alttext", "type", "itemprop", "encoding",
     "href", "start"])}
ATTRIBUTE_KEYS, ATTRIBUTE_VALUES = slots({name.encode(): n for name, n in ATTRIBUTES.items() if name}, 64)

ROLE_KEYS, ROLE_VALUES = slots({role.encode(): bits for role, bits in ROLES.items()}, 64)
_WEIGHT_BITS, _NO_WEIGHT = 13, 4096


def class_table(weights: dict[int, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The table of names in class and id: of hashes and their weights (-4,095 to 4,095), joined with our own marks."""
    entries = {h: weight + _NO_WEIGHT for h, weight in weights.items()}
    for bits, words in _WORDS.items():
        for word in words.split():
            h = fnv(word.encode())
            entries[h] = entries.get(h, _NO_WEIGHT) | bits << _WEIGHT_BITS
    return hashed(entries, size)


CLASSES = class_table({}, 256)


def _references() -> tuple[np.ndarray, np.ndarray]:
    """Named references that stand for one character, which never takes more bytes than its reference does."""
    names: dict[bytes, int] = {}
    for name, text in html.entities.html5.items():
        if len(text) == 1 and len(text.encode()) <= len(name) + 1:
            key = name.removesuffix(";").encode()
            # Case counts in these names, and `fnv` folds it: the hash takes capitals as bytes above 128.
            names[_cased(key)] = ord(text)
    return slots(names, 8192)


def _cased(name: bytes) -> bytes:
    return bytes(c + 128 if 65 <= c <= 90 else c for c in name)


# Those that also stand without a semicolon.
_BARE = {_cased(name.encode()): 1 for name in html.entities.html5 if not name.endswith(";")}
REFERENCE_KEYS, REFERENCE_VALUES = _references()
BARE_KEYS, BARE_VALUES = slots(_BARE, 512)
# What browsers read numeric references 128 to 159 as (13.2.5.80): windows-1252.
C1 = np.array([ord(bytes([n]).decode("cp1252", "ignore") or "\ufffd") for n in range(128, 160)])
