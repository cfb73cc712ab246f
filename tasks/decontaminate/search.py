"""Where documents hold passages of benchmark items.

At every seed of the index that a document has, document and passage are laid beside each other, and the equal words
before and after it are followed, over gaps of up to `GAP` words replaced, left out or put in between as long as two
words in a row are equal beyond. What is between the first equal word and the last is a *match*:

- `ngram_overlap` (GPT-3's rule, https://arxiv.org/abs/2005.14165, appendix C): it holds `min_ngrams` n-grams of the
  passage without a gap, or all it has, and `min_fraction` of its words;
- `item_similarity`: `similarity` of the passage's words are equal, and half of those that tell it from other items;
  passages shorter than `min_words`, and all when it is 1, must be there whole and without a gap.
"""

from bisect import bisect_left
from operator import attrgetter
from typing import NamedTuple

import numba
import numpy as np
import pyarrow as pa

from tasks.decontaminate.index import ANY, NONE, SEED, Index, mixed
from tasks.decontaminate.words import split_words
from tasks.spans import utf8

GAP = 4
MANY = 16             # of more postings of a seed only those are followed of which a word beside it is equal too
BLOCK = 2048          # words whose bits are asked for together: the cache misses overlap
RULES = ("ngram_overlap", "item_similarity")
_begin = attrgetter("begin")


class Match(NamedTuple):
    """A passage of an item in a text.

    Attributes:
        begin, end: of the match, in bytes of the text.
        passage: in the index.
        rule: of RULES.
        ngrams: n-grams of the passage without a gap in the match.
        matched, words: equal words, and words of the passage.
    """

    begin: int
    end: int
    passage: int
    rule: str
    ngrams: int
    matched: int
    words: int

    @property
    def fraction(self) -> float:
        return self.matched / self.words


@numba.njit(cache=True, inline="always")
def _ngrams(reach, low, high):
    """n-grams within words low to high (both in) of the index."""
    count = 0
    for k in range(low, high + 1):
        count += reach[k] > 0 and k - reach[k] + 1 >= low
    return count


@numba.njit(cache=True)
def _follow(known, telling, reach, i, bound, words, j, limit, step):
    """Follows equal words from known[i] and words[j] in direction `step`, until `bound` or `limit` (both out).

    Returns (equal words in the first run, in all, those of them that tell, n-grams of later runs, last j).
    """
    first, equal, telling_equal, ngrams, last, low = -1, 0, 0, 0, j - step, i
    while True:
        while i != bound and j != limit and known[i] == words[j]:
            equal += 1
            telling_equal += telling[i]
            last = j
            i += step
            j += step
        if first < 0:
            first = equal
        elif step > 0:
            ngrams += _ngrams(reach, low, i - 1)
        else:
            ngrams += _ngrams(reach, i + 1, low)
        if i == bound or j == limit:
            break
        jump_i, jump_j = 0, 0
        for k in range(1, GAP + 1):
            for way in range(3):                             # replaced, left out, put in between
                di = k if way != 2 else 0
                dj = k if way != 1 else 0
                room_i, room_j = (bound - i) * step - di, (limit - j) * step - dj
                if room_i <= 0 or room_j <= 0 or known[i + di * step] != words[j + dj * step]:
                    continue
                if room_i == 1 and way == 0 or (room_i > 1 and room_j > 1
                                                and known[i + (di + 1) * step] == words[j + (dj + 1) * step]):
                    jump_i, jump_j = di, dj
                    break
            if jump_i + jump_j:
                break
        if jump_i + jump_j == 0:
            break
        if jump_i == jump_j:
            for k in range(1, jump_i):                       # single equal words within the gap
                if known[i + k * step] == words[j + k * step]:
                    equal += 1
                    telling_equal += telling[i + k * step]
        i += jump_i * step
        j += jump_j * step
        low = i
    return first, equal, telling_equal, ngrams, last


@numba.njit(cache=True)
def scan(data, offsets, table, expansions, known, starts, reach, telling, grams, exact, told, bits, directory, postings,
         min_ngrams, min_fraction, similarity):
    """Matches in n texts: int64 (m, 7) of text, begin and end byte in it, passage, rule, n-grams, equal words.

    The arrays are those of `Index`, with its words as `known`.
    """
    found, longest = [], 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    words = np.empty(longest // 2 + 2, np.uint32)
    begins, ends = np.empty(longest // 2 + 2, np.int32), np.empty(longest // 2 + 2, np.int32)
    hashes, last_words, sizes = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    passed, firsts, lasts = np.empty(BLOCK + 1, np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    power = np.ones(SEED + 1, np.uint64)
    for k in range(1, SEED + 1):
        power[k] = power[k - 1] * np.uint64(0xD6E8FEB86659FD93)
    mask, shift = np.uint64(len(bits) - 1), np.uint64(64 - int(np.round(np.log2(len(directory) - 1))))
    done_word, done_place = np.full(len(grams), -1, np.int64), np.zeros(len(grams), np.int64)   # see below
    for text in range(len(offsets) - 1):
        n = split_words(data, offsets[text], offsets[text + 1], table, expansions, words, begins, ends)
        value, count, size = np.uint64(0), 0, 0
        for block in range(0, n, BLOCK):
            run = 0
            for k in range(block, min(n, block + BLOCK)):
                width = 2 - np.int64(words[k] & 1)
                value = value * np.uint64(0xD6E8FEB86659FD93) + np.uint64(words[k])
                count += 1
                size += width
                if size >= SEED:
                    oldest = words[k - count + 1]
                    while size - (2 - np.int64(oldest & 1)) >= SEED:
                        value -= np.uint64(oldest) * power[count - 1]
                        size -= 2 - np.int64(oldest & 1)
                        count -= 1
                        oldest = words[k - count + 1]
                    hashes[run], last_words[run], sizes[run] = mixed(value, count), k, count
                    run += 1
            candidates = 0
            for nth in range(run):                           # nothing else, so that many cache misses are under way
                mark = hashes[nth]
                two = np.uint64(1) << (mark & np.uint64(63)) | np.uint64(1) << (mark >> np.uint64(6) & np.uint64(63))
                passed[candidates] = nth
                candidates += bits[(mark >> np.uint64(12)) & mask] & two == two
            for nth in range(candidates):
                top = hashes[passed[nth]] >> shift
                firsts[nth], lasts[nth] = directory[top], directory[top + np.uint64(1)]
            for nth in range(candidates):
                mark, k = hashes[passed[nth]], last_words[passed[nth]]
                first = k - sizes[passed[nth]] + 1
                before = 1 + np.uint64(words[first - 1] >> 1) % np.uint64(254) if first > 0 else np.uint64(256)
                after = 1 + np.uint64(words[k + 1] >> 1) % np.uint64(254) if k + 1 < n else np.uint64(256)
                edge = np.uint64(ANY if lasts[nth] - firsts[nth] <= MANY else 257)
                for at in range(firsts[nth], lasts[nth]):
                    posting = postings[at]
                    if posting >> np.uint64(48) == mark & np.uint64(0xFFFF):
                        left = posting >> np.uint64(40) & np.uint64(255)
                        right = posting >> np.uint64(32) & np.uint64(255)
                        if not (left == before or right == after or left == edge or right == edge
                                or left == ANY and right == NONE):
                            continue
                        place = np.int64(posting & np.uint64(0xFFFFFFFF))
                        passage = np.searchsorted(starts, place, side="right") - 1
                        # A match goes on as long as place and word go on together: its other seeds tell nothing new.
                        if done_word[passage] >= text << 32 | k and done_place[passage] == place - k:
                            continue
                        low, high = starts[passage], starts[passage + 1]
                        run_before, equal, telling_equal, ngrams, begin = _follow(
                            known, telling, reach, place, low - 1, words, k, -1, -1)
                        if run_before < sizes[passed[nth]]:
                            continue                         # two runs of the same hash
                        run_after, equal_after, telling_after, ngrams_after, end = _follow(
                            known, telling, reach, place + 1, high, words, k + 1, n, 1)
                        equal += equal_after
                        telling_equal += telling_after
                        ngrams += ngrams_after + _ngrams(reach, place - run_before + 1, place + run_after)
                        total = high - low
                        rule = -1
                        if ngrams > 0 and ngrams >= min(min_ngrams, grams[passage]) and equal >= min_fraction * total:
                            rule = 0
                        elif run_before + run_after == total:
                            rule = 1
                        elif (similarity < 1 and not exact[passage] and equal >= similarity * total - 1e-9
                                and told[passage] > 0 and 2 * telling_equal >= told[passage]):
                            rule = 1
                        if rule >= 0:
                            done_word[passage], done_place[passage] = text << 32 | (k + run_after), place - k
                            found.append((np.int64(text), np.int64(begins[begin]), np.int64(ends[end]), passage,
                                          np.int64(rule), np.int64(ngrams), np.int64(equal)))
    out = np.empty((len(found), 7), np.int64)
    for k in range(len(found)):
        for column, entry in enumerate(found[k]):
            out[k, column] = entry
    return out


def matches(texts: pa.ChunkedArray | pa.Array, index: Index, min_ngrams: int = 1, min_fraction: float = 0.0,
            similarity: float = 0.8) -> dict[int, list[Match]]:
    """The matches of each text that has some, by its place: in the order of the text, the longest first where several
    begin together, one for each passage where they overlap."""
    rows = scan(*utf8(texts), index.table, index.expansions, index.words, index.starts, index.reach, index.telling,
                index.grams, index.exact, index.told, index.bits, index.directory, index.postings, min_ngrams,
                min_fraction, similarity)
    held: dict[int, dict[int, list[Match]]] = {}
    sizes = np.diff(index.starts)
    order = np.lexsort((rows[:, 3], -rows[:, 2], rows[:, 1], -rows[:, 6], rows[:, 0]))
    for text, begin, end, passage, rule, ngrams, matched in rows[order].tolist():
        same = held.setdefault(text, {}).setdefault(passage, [])        # apart, in order: neighbours alone may overlap
        at = bisect_left(same, begin, key=_begin)
        if (at == 0 or same[at - 1].end <= begin) and (at == len(same) or end <= same[at].begin):
            same.insert(at, Match(begin, end, passage, RULES[rule], ngrams, matched, int(sizes[passage])))
    return {text: sorted((match for same in found.values() for match in same),
                         key=lambda match: (match.begin, -match.end, match.passage)) for text, found in held.items()}
