"""The index of all benchmark items: built once, kept as a table, and used where the table's bytes lie.

Passages are kept as their words. Of each, *seeds* are indexed: runs of words of four words' length (eight letters in
scripts without spaces), at every word of passages up to `DENSE` words and at every `STRIDE`th of longer ones. A
document is looked through for seeds, and where it has one, it and the passage are laid beside each other
(`tasks.decontaminate.search`): the way of BLAST (https://doi.org/10.1016/S0022-2836(05)80360-2). Seven equal words in a
row always hold a seed; of a passage of n words in which one word in ten differs, at least n // 8 seeds do as a rule.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from tasks.decontaminate.items import Item
from tasks.decontaminate.words import all_words, folding, lengths
from tasks.spans import utf8

SEED = 8              # half words
DENSE, STRIDE = 32, 4
REPEATS = 4           # of the same seed in a passage that are indexed
ANY, NONE = 0, 255    # instead of 8 bits of a word
BASE = np.uint64(0xD6E8FEB86659FD93)

# One row for each array of `Index`.
INDEX = pa.schema([("name", pa.string()), ("kind", pa.string()), ("data", pa.large_binary())])


class Index(NamedTuple):
    """Passages of benchmark items and their seeds.

    Attributes:
        table, expansions: the folding of `words`.
        words: (t) uint32, of all passages, one after another; passage p has those from starts[p] to starts[p + 1].
        starts: (p + 1) int64.
        reach: (t) uint8, how many words the n-gram has that ends here; 0 at a passage's head and in templates.
        telling: (t) uint8, 0 for words in seeds that many items share.
        grams: (p) int32, n-grams of the passage.
        exact: (p) uint8, 1 for passages that count only whole.
        told: (p) int32, telling words of the passage.
        owners: (o) int32, the items of passage p are owners[owned[p]:owned[p + 1]]; owned is int64 (p + 1).
        bits: (b) uint64, two bits of one word for each seed; b is a power of two.
        directory: (d + 1) uint32, the postings of the seeds with the same first bits; d is a power of two.
        postings: (q) uint64, of seeds: 16 last bits of its hash, 8 of the word before, 8 of the word after (ANY at the
            passage's ends, NONE where only the other one counts), 32 of the place of its last word in `words`.
        names: item names as UTF-8 JSON: [[benchmark, item], ...].
    """

    table: np.ndarray
    expansions: np.ndarray
    words: np.ndarray
    starts: np.ndarray
    reach: np.ndarray
    telling: np.ndarray
    grams: np.ndarray
    exact: np.ndarray
    told: np.ndarray
    owners: np.ndarray
    owned: np.ndarray
    bits: np.ndarray
    directory: np.ndarray
    postings: np.ndarray
    names: np.ndarray


@numba.njit(cache=True, inline="always")
def mixed(value, count):
    """SplitMix64's finalizer (https://doi.org/10.1145/2714064.2660195) over a run's polynomial and its length."""
    value = value ^ (np.uint64(count) * np.uint64(0x9E3779B97F4A7C15))
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(cache=True)
def powers(length):
    """BASE to the powers 0 to length, uint64."""
    out = np.ones(length + 1, np.uint64)
    for k in range(1, length + 1):
        out[k] = out[k - 1] * np.uint64(0xD6E8FEB86659FD93)
    return out


@numba.njit(cache=True)
def runs(words, starts, length):
    """For each word the run of at least `length` half words that ends there, as short as possible, within its text.

    Returns (hashes uint64, counts uint8 of words, 0 where there is none).
    """
    hashes, counts, power = np.zeros(len(words), np.uint64), np.zeros(len(words), np.uint8), powers(length)
    for text in range(len(starts) - 1):
        value, count, size = np.uint64(0), 0, 0
        for k in range(starts[text], starts[text + 1]):
            value = value * np.uint64(0xD6E8FEB86659FD93) + np.uint64(words[k])
            count += 1
            size += 2 - (words[k] & 1)
            while size - (2 - (words[k - count + 1] & 1)) >= length:
                value -= np.uint64(words[k - count + 1]) * power[count - 1]
                size -= 2 - (words[k - count + 1] & 1)
                count -= 1
            if size >= length:
                hashes[k], counts[k] = mixed(value, count), count
    return hashes, counts


def build(items: Sequence[Item], ngram: int, min_words: int, exact_words: int, max_items: int) -> Index:
    """The index of `items`; the arguments are settings of the stage."""
    table, expansions = folding()
    texts, item_of = _passages(items, table, expansions, ngram, min_words, exact_words)
    words, starts = _split(texts, table, expansions)
    words, starts, owners, owned = _distinct(words, starts, item_of, max_items)
    passage_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    hashes, counts = runs(words, starts, 2 * ngram)
    shared = _shared(hashes, counts, passage_of, owners, owned, max_items)
    ends = np.flatnonzero((counts > 0) & ~shared)
    reach = np.zeros(len(words), np.uint8)
    reach[ends] = counts[ends]
    grams = np.bincount(passage_of[ends], minlength=len(starts) - 1).astype(np.int32)

    hashes, counts = runs(words, starts, SEED)
    common = np.flatnonzero(_shared(hashes, counts, passage_of, owners, owned, max_items))
    telling = np.ones(len(words), np.uint8)
    for back in range(SEED):
        telling[common[counts[common] > back] - back] = 0
    exact = (lengths(words, starts) < 2 * min_words).astype(np.uint8)
    told = np.bincount(passage_of, weights=telling, minlength=len(starts) - 1).astype(np.int32)
    seeds = _seeds(words, starts, passage_of, hashes, counts, exact)
    names = np.frombuffer(_json([[item.benchmark, item.name] for item in items]), np.uint8)
    return Index(table, expansions, words, starts, reach, telling, grams, exact, told, owners, owned, *seeds, names)


def _json(value) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=True).encode()


def _split(texts: Sequence[str], table: np.ndarray, expansions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    safe = [text.encode("utf-8", "replace").decode() for text in texts]
    return all_words(*utf8(pa.array(safe, pa.large_string())), table, expansions)


def _passages(items: Sequence[Item], table, expansions, ngram: int, min_words: int, exact_words: int):
    """(texts, number of each one's item) of the passages that count; which do is told in `items`."""
    sections = [(text, number) for number, item in enumerate(items) for text in item.sections]
    whole = [(" ".join(item.sections), number) for number, item in enumerate(items)]
    answered = [(f"{' '.join(item.sections)} {item.answer}", n) for n, item in enumerate(items) if item.answer]
    offered = [(" ".join([*item.sections, *item.choices]), n) for n, item in enumerate(items) if item.choices]
    alone = [(text, number) for number, item in enumerate(items) for text in item.alone]
    first = [(text, number) for number, item in enumerate(items) for text in (*item.sections[:1], item.prompt)]
    groups = (sections, whole, answered, offered, alone, first)
    sizes = [lengths(*_split([text for text, _ in group], table, expansions)) for group in groups]
    numbers = [np.fromiter((number for _, number in group), np.int64, len(group)) for group in groups]
    long = np.zeros(len(items), bool)
    long[numbers[0][sizes[0] >= 2 * min_words]] = True
    short = ~long
    short[numbers[1][sizes[1] >= 2 * min_words]] = False      # the whole prompt is too short as well
    takes = (sizes[0] >= 2 * min_words, (sizes[1] >= 2 * exact_words) & ~long[numbers[1]],
             (sizes[2] >= 2 * min_words) & short[numbers[2]], (sizes[3] >= 2 * min_words) & short[numbers[3]],
             sizes[4] >= 2 * ngram, (sizes[5] >= 2 * exact_words) & ~long[numbers[5]])
    chosen = [(text, number) for group, take in zip(groups, takes, strict=True)
              for (text, number), wanted in zip(group, take.tolist(), strict=True) if wanted]
    return [text for text, _ in chosen], np.array([number for _, number in chosen], np.int64)


def _distinct(words, starts, item_of, max_items):
    """Passages of equal words become one, that of all their items; those of more than `max_items` are templates: gone.

    Returns (words, starts, owners, owned)."""
    keys: dict[bytes, dict[int, None]] = {}
    for passage, item in enumerate(item_of.tolist()):
        keys.setdefault(words[starts[passage]:starts[passage + 1]].tobytes(), {})[item] = None
    keys = {key: found for key, found in keys.items() if len(found) <= max_items}
    owned = np.append(0, np.cumsum([len(found) for found in keys.values()], dtype=np.int64)).astype(np.int64)
    owners = np.array([item for found in keys.values() for item in found], np.int32)
    starts = np.append(0, np.cumsum([len(key) // 4 for key in keys], dtype=np.int64)).astype(np.int64)
    return np.frombuffer(b"".join(keys), np.uint32), starts, owners, owned


def _shared(hashes, counts, passage_of, owners, owned, max_items) -> np.ndarray:
    """Which runs are in more than `max_items` items."""
    out = np.zeros(len(counts), bool)
    here = np.flatnonzero(counts)
    if not len(here):
        return out
    many = np.diff(owned)[passage_of[here]]                     # items of the run's passage
    run = np.repeat(here, many)
    nth = np.arange(len(run)) - np.repeat(np.cumsum(many) - many, many)
    item = owners[owned[passage_of[run]] + nth]
    order = np.lexsort((item, hashes[run]))
    run, item = run[order], item[order]
    new_hash = np.append(True, hashes[run][1:] != hashes[run][:-1])
    new_pair = new_hash | np.append(True, item[1:] != item[:-1])
    group = np.cumsum(new_hash) - 1
    out[run] = np.bincount(group, weights=new_pair)[group] > max_items
    return out


def _seeds(words, starts, passage_of, hashes, counts, exact):
    """(bits, directory, postings) of `Index`."""
    sizes = np.diff(starts)[passage_of]
    place = np.arange(len(words)) - starts[:-1][passage_of]
    last = place == sizes - 1
    whole = exact[passage_of] > 0
    taken = np.where(whole, last, (sizes <= DENSE) | (place % STRIDE == 0) | last)
    ends = np.flatnonzero((counts > 0) & taken)
    order = ends[np.lexsort((ends, hashes[ends]))]
    # Of a seed that repeats within a passage the first few are enough: "a a a a a ..." would cost its square.
    same = (hashes[order][1:] == hashes[order][:-1]) & (passage_of[order][1:] == passage_of[order][:-1])
    begun = np.maximum.accumulate(np.where(np.append(False, same)[:len(order)], 0, np.arange(len(order))))
    order = order[np.arange(len(order)) - begun < REPEATS]
    keys = hashes[order]
    power = max(4, int(np.ceil(np.log2(max(1, len(keys))))))
    directory = np.searchsorted((keys >> np.uint64(64 - power)).astype(np.int64), np.arange((1 << power) + 1))
    bits = np.zeros(1 << max(6, power - 2), np.uint64)      # 16 to 32 bits a seed
    masks = np.uint64(1) << (keys & np.uint64(63)) | np.uint64(1) << (keys >> np.uint64(6) & np.uint64(63))
    np.bitwise_or.at(bits, (keys >> np.uint64(12) & np.uint64(len(bits) - 1)).astype(np.int64), masks)
    close = np.append(1 + (words >> 1) % 254, 0).astype(np.uint64)
    before, after, passage = order - counts[order], order + 1, passage_of[order]
    left = np.where(before >= starts[:-1][passage], close[before], ANY).astype(np.uint64)
    right = np.where(after < starts[1:][passage], close[after], ANY).astype(np.uint64)
    right[whole[order]] = NONE
    postings = (keys & np.uint64(0xFFFF)) << np.uint64(48) | left << np.uint64(40) | right << np.uint64(32)
    return bits, directory.astype(np.uint32), postings | order.astype(np.uint64)


def as_table(index: Index) -> pa.Table:
    """The index as a table of INDEX."""
    rows = [(name, array.dtype.str, np.ascontiguousarray(array).tobytes())
            for name, array in zip(Index._fields, index, strict=True)]
    return pa.table(dict(zip(INDEX.names, map(list, zip(*rows, strict=True)), strict=True)), schema=INDEX)


def from_table(table: pa.Table) -> Index | None:
    """The index that `as_table` made, over the table's own memory; None for the empty table."""
    arrays = {name: np.frombuffer(data.as_buffer(), kind) for name, kind, data in
              zip(table["name"].to_pylist(), table["kind"].to_pylist(), table["data"], strict=True)}
    return Index(**arrays) if arrays else None
