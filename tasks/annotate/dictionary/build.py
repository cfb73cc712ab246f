"""Makes words.bin, the word lists of the scripts written without spaces, from ICU's break dictionaries.

    pip download --no-deps icu4py==1.2.0 && unzip icu4py-*.whl
    python -m tasks.annotate.dictionary.build icu4py.libs/libicudata-*.so*

ICU (https://github.com/unicode-org/icu, licence beside this file) holds five: Chinese and Japanese in one, with
a cost for each word (about -10 ln of its frequency), Burmese, Khmer, Lao and Thai without. Each lies in the library
as a trie whose format is that of ICU's ucharstrie.h and bytestrie.h; the library may be of any version or system.

words.bin is an LZMA (.xz) stream of: the number of words (uint32), then for each word in the order of its code
points one byte each of the code points it shares with the word before, of those it adds, and of its cost (1 to 254),
then all added code points (uint16). Integers are little-endian.
"""

import lzma
import re
import struct
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

WITHOUT_COST = 100           # of words of the dictionaries that have no frequencies: only their number counts


def char_trie(units):
    """(units, value) of all entries of a UCharsTrie."""
    def value(at, lead):
        if lead < 0x4000:
            return lead, at
        if lead < 0x7FFF:
            return (lead - 0x4000) << 16 | units[at], at + 1
        return units[at] << 16 | units[at + 1], at + 2

    def inner(at, node):                                    # the value of a node that goes on, and the rest of the node
        lead = node & 0x7FFF
        if lead < 0x4040:
            return (lead >> 6) - 1, at, node & 0x3F
        if lead < 0x7FC0:
            return ((lead & 0x7FC0) - 0x4040) << 10 | units[at], at + 1, node & 0x3F
        return units[at] << 16 | units[at + 1], at + 2, node & 0x3F

    def delta(at):
        lead = units[at]
        if lead < 0xFC00:
            return lead, at + 1
        if lead < 0xFFFF:
            return (lead - 0xFC00) << 16 | units[at + 1], at + 2
        return units[at + 1] << 16 | units[at + 2], at + 3

    def leaf(at):                                           # of a branch: is it final, its value, what follows
        node = units[at]
        return node >> 15, *value(at + 1, node & 0x7FFF)

    return _entries(units, 0x30, 0x40, lambda node: node & 0x8000, lambda at, node: value(at, node & 0x7FFF), inner,
                    delta, leaf)


def byte_trie(units):
    """(units, value) of all entries of a BytesTrie."""
    def value(at, lead):
        if lead < 0x51:
            return lead - 0x10, at
        for least, n in ((0x6C, 1), (0x7E, 2), (0x7F, 3), (0x80, 4)):
            if lead < least:
                rest = int.from_bytes(units[at:at + n], "big")
                return ((lead - (0x51, 0x6C)[n - 1]) << 8 * n | rest if n < 3 else rest), at + n
        raise ValueError("not a BytesTrie")

    def delta(at):
        lead = units[at]
        for least, first, n in ((0xC0, 0, 0), (0xF0, 0xC0, 1), (0xFE, 0xF0, 2), (0xFF, 0xFE, 3), (0x100, 0xFF, 4)):
            if lead < least:
                return (lead - first) << 8 * n | int.from_bytes(units[at + 1:at + 1 + n], "big"), at + 1 + n
        raise ValueError("not a BytesTrie")

    def leaf(at):
        return units[at] & 1, *value(at + 1, units[at] >> 1)

    def inner(at, node):
        found, at = value(at, node >> 1)
        return found, at + 1, units[at]

    return _entries(units, 0x10, 0x20, lambda node: node & 1, lambda at, node: value(at, node >> 1), inner, delta, leaf)


def _entries(units, first_match, first_value, final, value, inner, delta, leaf):
    todo = [(0, 0, ())]                                     # (place, 0 for a node or a branch's width, units)
    while todo:
        at, width, prefix = todo.pop()
        if width == 0:
            node, at = units[at], at + 1
            while node >= first_match:
                if node < first_value:                      # a stretch without branches
                    n = node - first_match + 1
                    prefix += tuple(units[at:at + n])
                    node, at = units[at + n], at + n + 1
                elif final(node):
                    yield prefix, value(at, node)[0]
                    break
                else:
                    found, at, node = inner(at, node)
                    yield prefix, found
            else:
                if node == 0:
                    node, at = units[at], at + 1
                todo.append((at, node + 1, prefix))
            continue
        while width > 5:                                    # a binary search down to five units
            jump, after = delta(at + 1)
            todo.append((after + jump, width >> 1, prefix))
            at, width = after, width - (width >> 1)
        for _ in range(width - 1):
            unit = units[at]
            last, found, after = leaf(at + 1)
            if last:
                yield (*prefix, unit), found
            else:
                todo.append((after + found, 0, (*prefix, unit)))
            at = after
        todo.append((at + 1, 0, (*prefix, units[at])))


def dictionaries(library: bytes):
    """(word, cost) of every entry of every dictionary in an ICU data library or .dat file."""
    for found in re.finditer(rb"\xda\x27.{8}Dict", library, re.DOTALL):
        begin = found.start() - 2
        begin += struct.unpack_from("<H", library, begin)[0]
        start, _, _, size, kind, transform = struct.unpack_from("<6i", library, begin)
        trie = library[begin + start:begin + size]
        if kind & 7 == 1:
            units = np.frombuffer(trie[:len(trie) // 2 * 2], "<u2").tolist()
            for word, cost in char_trie(units):
                yield struct.pack(f"<{len(word)}H", *word).decode("utf-16-le"), cost
        else:
            joiners, base = {0xFE: "\u200c", 0xFF: "\u200d"}, transform & 0x1FFFFF
            for word, _ in byte_trie(trie):
                yield "".join(joiners.get(unit) or chr(base + unit) for unit in word), WITHOUT_COST


def pack(words: dict[str, int]) -> bytes:
    """words.bin of words and their costs."""
    order = sorted(words)
    shared = [0] + [next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b),
                         min(len(left), len(right))) for left, right in pairwise(order)]
    raw = (struct.pack("<I", len(order)) + bytes(shared) + bytes(len(w) - n for w, n in zip(order, shared, strict=True))
           + bytes(words[w] for w in order)
           + "".join(w[n:] for w, n in zip(order, shared, strict=True)).encode("utf-16-le"))
    return lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    words = {word: cost for word, cost in dictionaries(Path(sys.argv[1]).read_bytes()) if max(map(ord, word)) < 0x10000}
    if not words:
        sys.exit(f"{sys.argv[1]} holds no ICU break dictionaries; name libicudata or an icudt*.dat")
    packed = pack(words)
    Path(__file__).with_name("words.bin").write_bytes(packed)
    print(f"{len(words)} words, {len(packed)} bytes")


if __name__ == "__main__":
    main()
