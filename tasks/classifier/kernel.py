"""fastText's supervised training and prediction, compiled (Joulin et al. 2016, https://arxiv.org/abs/1607.01759).

The features of a text are fastText's own, so that a model trained here is one that fastText reads and the other way
round: tokens between ASCII white space, those of the vocabulary with a row each, and hashed n-grams of all tokens with
a row for each of `buckets` remainders (FNV-1a of the token's bytes, as signed bytes; h * 116049371 + h' along the
n-gram); the end of a text is a token, `</s>`; a token that begins with `__label__` is none. A text is the mean of its
rows; the scores are a softmax over its products with the two labels' vectors.

Training is stochastic gradient descent, a text a step, the learning rate falling linearly to 0. Two things are unlike
the library, which initialises only a tenth of the matrix when it trains with one thread and leaves the rest to what the
memory held before (src/densematrix.cc, uniform): every row is initialised, and by a generator of its own, so that the
same texts give the same model; and rows that no text has touched end as 0 instead of noise.

Vocabulary is looked up by a 64-bit hash: among a million words two collide with a probability below 1e-7.
"""

import numpy as np
from numba import njit

EOS = b"</s>"
LABEL = b"__label__"
_EOS = np.frombuffer(EOS, np.uint8)
_LABEL = np.frombuffer(LABEL, np.uint8)
_FNV32, _PRIME32 = np.uint32(2166136261), np.uint32(16777619)
_FNV64, _PRIME64 = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_NGRAM = np.uint64(116049371)


@njit
def _space(byte):
    return byte == 32 or (9 <= byte <= 13) or byte == 0


@njit
def _hashes(data, start, end):
    """fastText's 32-bit hash of a token, and the 64-bit one of our table (never 0)."""
    h32, h64 = _FNV32, _FNV64
    for i in range(start, end):
        signed = np.uint32(data[i]) | (np.uint32(0xFFFFFF00) if data[i] > 127 else np.uint32(0))
        h32 = np.uint32((h32 ^ signed) * _PRIME32)
        h64 = (h64 ^ np.uint64(data[i])) * _PRIME64
    h64 ^= h64 >> np.uint64(32)
    return h32, h64 if h64 else np.uint64(1)


@njit
def _is_label(data, start, end):
    if end - start < len(_LABEL):
        return False
    for k in range(len(_LABEL)):
        if data[start + k] != _LABEL[k]:
            return False
    return True


@njit
def _slot(keys, h64):
    """Where a hash is in an open table whose size is a power of two, or the free place where it belongs."""
    mask = np.uint64(len(keys) - 1)
    at = (h64 * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
    while keys[at] != 0 and keys[at] != h64:
        at = (at + np.uint64(1)) & mask
    return at


@njit
def _features(data, start, end, keys, rows, n_words, buckets, ngrams, out, tokens):
    """Writes the rows of a text into `out`, its tokens' hashes into `tokens`; returns how many of each.

    `tokens` must have room for (end - start) // 2 + 2 of them, and `out` for `ngrams` times as many.
    """
    n, count, i = 0, 0, start
    while True:
        while i < end and _space(data[i]):
            i += 1
        last = i >= end
        begin = i
        while i < end and not _space(data[i]):
            i += 1
        if last:
            h32, h64 = _hashes(_EOS, 0, len(_EOS))
        elif _is_label(data, begin, i):
            continue
        else:
            h32, h64 = _hashes(data, begin, i)
        at = _slot(keys, h64)
        if keys[at] == h64:
            out[n] = rows[at]
            n += 1
        tokens[count] = np.int32(h32)
        count += 1
        if last:
            break
    if buckets:
        for first in range(count):
            h = np.uint64(np.int64(tokens[first]))
            for k in range(first + 1, min(count, first + ngrams)):
                h = h * _NGRAM + np.uint64(np.int64(tokens[k]))
                out[n] = n_words + np.int64(h % np.uint64(buckets))
                n += 1
    return n, count


@njit
def _room(offsets, ngrams):
    """Buffers for `_features` that the longest text fits into."""
    longest = 0
    for text in range(len(offsets) - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    tokens = np.empty(longest // 2 + 2, np.int32)
    return np.empty(len(tokens) * ngrams, np.int64), tokens


@njit(cache=True)
def count_words(data, offsets):
    """The distinct tokens of n texts: int64 of shape (words, 3), a word's count and its first start and end in `data`.

    In the order of their first occurrence, without `</s>` and labels. `offsets` has n + 1 entries.
    """
    keys = np.zeros(1 << 16, np.uint64)
    index = np.zeros(len(keys), np.int64)
    found = np.empty((1 << 15, 3), np.int64)
    n = 0
    for text in range(len(offsets) - 1):
        i, end = offsets[text], offsets[text + 1]
        while i < end:
            while i < end and _space(data[i]):
                i += 1
            begin = i
            while i < end and not _space(data[i]):
                i += 1
            if begin == i or _is_label(data, begin, i):
                continue
            _, h64 = _hashes(data, begin, i)
            at = _slot(keys, h64)
            if keys[at] == 0:
                keys[at], index[at] = h64, n
                found[n, 0], found[n, 1], found[n, 2] = 0, begin, i
                n += 1
                if n == len(found):
                    more = np.empty((2 * len(found), 3), np.int64)
                    more[:n] = found
                    found = more
                    old, old_index = keys, index
                    keys = np.zeros(2 * len(old), np.uint64)
                    index = np.zeros(2 * len(old), np.int64)
                    for k in range(len(old)):
                        if old[k] != 0:
                            place = _slot(keys, old[k])
                            keys[place], index[place] = old[k], old_index[k]
                    at = _slot(keys, h64)
            found[index[at], 0] += 1
    return found[:n]


@njit(cache=True)
def table(words, starts):
    """The open table of a vocabulary: hashes (uint64, 0 where free) and rows (int32).

    `words` are the bytes of all words, word i from starts[i] to starts[i + 1].
    """
    size = 1 << 4
    while size < 2 * len(starts):
        size *= 2
    keys, rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    for word in range(len(starts) - 1):
        _, h64 = _hashes(words, starts[word], starts[word + 1])
        at = _slot(keys, h64)
        if keys[at] == 0:
            keys[at], rows[at] = h64, word
    return keys, rows


@njit
def _random(seed, row, column):
    """splitmix64's finaliser of a position, as a number from 0 to 1 (Steele, Lea, Flood 2014)."""
    h = (np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(row)) * np.uint64(0xD1B54A32D192ED03)
    h += np.uint64(column) * np.uint64(0x8CB92BA72F3D8DD7)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((h ^ (h >> np.uint64(31))) >> np.uint64(11)) / 9007199254740992.0


@njit
def _tokens(data, start, end, most):
    """How many tokens, at most `most`, begin in a range of bytes, and where the last of them ends."""
    n, i, last = 0, start, start
    while i < end and n < most:
        while i < end and _space(data[i]):
            i += 1
        if i == end:
            break
        while i < end and not _space(data[i]):
            i += 1
        n, last = n + 1, i
    return n, last


@njit(cache=True)
def count_tokens(data, offsets):
    """How many tokens each text has, int64; what begins with `__label__` counts here."""
    counts = np.empty(len(offsets) - 1, np.int64)
    for text in range(len(counts)):
        counts[text] = _tokens(data, offsets[text], offsets[text + 1], np.int64(1) << 62)[0]
    return counts


@njit(cache=True)
def train(data, offsets, labels, keys, rows, n_words, buckets, ngrams, dim, rate, epochs, window, seed):
    """Trains on texts in the order in which they come, `epochs` times over, each time on a window of a text.

    Args:
        data, offsets: UTF-8 of n texts, text i from offsets[i] to offsets[i + 1].
        labels: n times 1 (positive) or 0.
        keys, rows: what `table` gives for the vocabulary, of n_words words.
        buckets, ngrams: rows of hashed n-grams, and the longest n-gram in tokens.
        dim, rate, epochs: of the vectors; first learning rate; passes.
        window: tokens of a text that a step sees, from a place drawn anew in each pass; 0: all of it.
        seed: of the first values and the windows.

    Returns the weights, float32 of shape (n_words + buckets,): the product of each row with the difference of the
    labels' vectors, so that the logit of a text is the mean over its rows; and the mean loss of the last epoch, nats.
    """
    total = n_words + buckets
    matrix = np.zeros((total, dim), np.float32)
    touched = np.zeros(total, np.bool_)
    outputs = np.zeros((2, dim), np.float32)
    hidden, gradient = np.empty(dim, np.float32), np.empty(dim, np.float32)
    out, tokens = _room(offsets, ngrams)
    texts = len(offsets) - 1
    counts = count_tokens(data, offsets)
    steps, step, loss = epochs * texts, 0, 0.0
    for epoch in range(epochs):
        loss = 0.0
        for text in range(texts):
            start, end = offsets[text], offsets[text + 1]
            if window and counts[text] > window:
                skip = np.int64(_random(seed ^ 0x5EED, text, epoch) * (counts[text] - window + 1))
                start = _tokens(data, start, end, skip)[1]
                end = _tokens(data, start, end, window)[1]
            n, _ = _features(data, start, end, keys, rows, n_words, buckets, ngrams, out, tokens)
            lr = np.float32(rate * (1.0 - step / steps))
            step += 1
            if n == 0:
                continue
            hidden[:] = 0
            for k in range(n):
                row = out[k]
                if not touched[row]:
                    touched[row] = True
                    for d in range(dim):
                        matrix[row, d] = np.float32((2.0 * _random(seed, row, d) - 1.0) / dim)
                for d in range(dim):
                    hidden[d] += matrix[row, d]
            share = np.float32(1.0 / n)
            logit = 0.0
            for d in range(dim):
                hidden[d] *= share
                logit += np.float64(hidden[d]) * (np.float64(outputs[1, d]) - np.float64(outputs[0, d]))
            positive = 1.0 / (1.0 + np.exp(-logit))
            right = positive if labels[text] else 1.0 - positive
            loss -= np.log(max(right, 1e-12))
            gradient[:] = 0
            for label in range(2):
                wanted = 1.0 if labels[text] == label else 0.0
                alpha = np.float32(lr * (wanted - (positive if label else 1.0 - positive)))
                for d in range(dim):
                    gradient[d] += alpha * outputs[label, d]
                    outputs[label, d] += alpha * hidden[d]
            for d in range(dim):
                gradient[d] *= share
            for k in range(n):
                for d in range(dim):
                    matrix[out[k], d] += gradient[d]
    weights = np.zeros(total, np.float32)
    for row in range(total):
        if touched[row]:
            product = 0.0
            for d in range(dim):
                product += np.float64(matrix[row, d]) * (np.float64(outputs[1, d]) - np.float64(outputs[0, d]))
            weights[row] = np.float32(product)
    return weights, loss / max(texts, 1)


@njit(cache=True)
def logits(data, offsets, keys, rows, n_words, buckets, ngrams, weights):
    """The logit of each text's positive label, float64: the mean of its rows' weights; NaN for a text without tokens.

    A token is one that the text has: `</s>` alone says nothing.
    """
    texts = len(offsets) - 1
    found = np.full(texts, np.nan)
    out, tokens = _room(offsets, ngrams)
    for text in range(texts):
        n, count = _features(data, offsets[text], offsets[text + 1], keys, rows, n_words, buckets, ngrams, out, tokens)
        if count < 2:
            continue
        total = 0.0
        for k in range(n):
            total += np.float64(weights[out[k]])
        found[text] = total / n if n else 0.0
    return found


@njit(cache=True)
def presence(data, offsets, labels, keys, rows, n_words):
    """How many texts of each label have each word of the vocabulary: int64 of shape (n_words, 2)."""
    found, last = np.zeros((n_words, 2), np.int64), np.full(n_words, -1, np.int64)
    out, tokens = _room(offsets, 1)
    for text in range(len(offsets) - 1):
        n, _ = _features(data, offsets[text], offsets[text + 1], keys, rows, n_words, 0, 1, out, tokens)
        for k in range(n):
            if last[out[k]] != text:
                last[out[k]] = text
                found[out[k], labels[text]] += 1
    return found


@njit
def _put(point, out, at):
    if point < 0x80:
        out[at] = point
        return at + 1
    if point < 0x800:
        out[at], out[at + 1] = 0xC0 | point >> 6, 0x80 | point & 63
        return at + 2
    if point < 0x10000:
        out[at], out[at + 1], out[at + 2] = 0xE0 | point >> 12, 0x80 | point >> 6 & 63, 0x80 | point & 63
        return at + 3
    out[at], out[at + 1] = 0xF0 | point >> 18, 0x80 | point >> 12 & 63
    out[at + 2], out[at + 3] = 0x80 | point >> 6 & 63, 0x80 | point & 63
    return at + 4


@njit(cache=True)
def spell(data, offsets, table, in_word, alone):
    """Texts as words between single spaces: UTF-8 (uint8) and its n + 1 offsets.

    Args:
        data, offsets: UTF-8 of n texts.
        table: class << 21 | folded code point, for each code point (tasks.words).
        in_word: by class, 1 for what words are made of, 2 for what joins a word that has begun, 3 for what is as if not
            there.
        alone: the class of characters that are each a word, with what joins it.
    """
    out = np.empty(2 * (offsets[-1] - offsets[0]) + 8, np.uint8)
    ends = np.zeros(len(offsets), np.int64)
    at = 0
    for text in range(len(offsets) - 1):
        i, end, begun = offsets[text], offsets[text + 1], at
        inside = 0                      # 1 in a word, 2 in a word of one character
        while i < end:
            b = np.int32(data[i])
            point, width = np.int32(0xFFFD), 1          # what is no UTF-8, never read beyond the text's end
            if b < 0x80:
                point = b
            elif 0xC0 <= b < 0xE0 and i + 1 < end:
                point, width = (b & 31) << 6 | data[i + 1] & 63, 2
            elif 0xE0 <= b < 0xF0 and i + 2 < end:
                point, width = (b & 15) << 12 | (data[i + 1] & 63) << 6 | data[i + 2] & 63, 3
            elif 0xF0 <= b < 0xF5 and i + 3 < end:
                point = (b & 7) << 18 | (data[i + 1] & 63) << 12 | (data[i + 2] & 63) << 6 | data[i + 3] & 63
                point, width = point if point < 0x110000 else np.int32(0xFFFD), 4
            i += width
            packed = table[point]
            kind = packed >> 21
            if in_word[kind] == 3:
                continue
            if kind == alone or in_word[kind] == 1 and inside != 1:
                if at > begun:
                    out[at] = 32
                    at += 1
                inside = 2 if kind == alone else 1
            elif not (inside and in_word[kind]):
                inside = 0
                continue
            at = _put(packed & 0x1FFFFF, out, at)
        ends[text + 1] = at
    return out[:at], ends
