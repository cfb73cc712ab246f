"""One pass over a document's UTF-8 bytes, compiled, from which all its text signals and its MinHash come.

Every compiled function is in this file, and everything else reaches it as an argument: numba's cache on
disk is renewed when the file of the called function changes, and does not see changes in others. Only the two
functions that others call are cached; the rest is compiled into them. Nothing outlives a document but buffers that
are set anew.

The definitions of the signals are in `tasks.annotate.SIGNALS`.
"""

import numpy as np
from numba import njit, types


def _frozen(dtype, dimensions=1):
    return types.Array(dtype, dimensions, "C", readonly=True)


# The columns of `measure`'s first output.
(N_CHARS, N_WORDS, N_LINES, N_PARAGRAPHS, N_SENTENCES, MEAN_WORD_LENGTH, MAX_TOKEN_LENGTH, MEAN_WORDS_PER_LINE,
 UNIQUE_WORDS, HASH_RATIO, ELLIPSIS_RATIO, LETTER_TOKENS, STOP_WORDS, NEWLINE_RATIO,
 BULLET_LINES, ELLIPSIS_LINES, TERMINAL_LINES, SHORT_LINES, N_CURLY, LOREM_IPSUM, JAVASCRIPT_WORDS, POLICY_WORDS,
 C4_SENTENCES, C4_SENTENCES_ANY_END,
 DUPLICATE_LINES, DUPLICATE_LINE_CHARS, DUPLICATE_PARAGRAPHS, DUPLICATE_PARAGRAPH_CHARS) = range(28)
GRAMS = 28                   # then the character fractions of top 2..4-grams and duplicate 5..10-grams
COLUMNS = GRAMS + 9

# tasks.annotate.words' classes and constants, which the compiler needs as literals here (a test compares).
OTHER, LETTER, DIGIT, MARK, SINGLE, FORMAT, SPACE, TERMINAL, CLOSING, BULLET = range(10)
CLASS_SHIFT, POINT_MASK = 21, (1 << 21) - 1
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)
ZERO, S16, S13 = np.uint64(0), np.uint32(16), np.uint32(13)

SHORT_LINE, C4_LINE_WORDS, C4_WORD_LENGTH = 30, 3, 1000


@njit
def fmix64(h):
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    h = (h ^ (h >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit
def decode(data, i, end):
    """The code point at byte i and its width; a broken sequence is U+FFFD, never a read beyond `end`."""
    b = np.int32(data[i])
    if b < 0x80:
        return b, 1
    if 0xC0 <= b < 0xE0 and i + 1 < end:
        return (b & 31) << 6 | data[i + 1] & 63, 2
    if 0xE0 <= b < 0xF0 and i + 2 < end:
        return (b & 15) << 12 | (data[i + 1] & 63) << 6 | data[i + 2] & 63, 3
    if 0xF0 <= b < 0xF5 and i + 3 < end:
        point = (b & 7) << 18 | (data[i + 1] & 63) << 12 | (data[i + 2] & 63) << 6 | data[i + 3] & 63
        return (point if point < 0x110000 else 0xFFFD), 4
    return 0xFFFD, 1


@njit
def ratio(a, b):
    return a / b if b else 0.0


@njit
def scan(data, start, end, table, landmarks, words, lengths, lines, line_chars, paragraphs, paragraph_chars, out):
    """Fills the arrays of word, line and paragraph hashes and lengths, and the signals that need no memory of them.

    Returns the numbers of words, lines and paragraphs.
    """
    n_chars = n_words = n_lines = n_paragraphs = n_sentences = n_newlines = n_hashes = n_ellipses = n_curly = 0
    n_tokens = letter_tokens = max_token = word_chars = stop_seen = 0
    bullets = ellipsis_lines = terminals = shorts = lorem = javascript_words = policy_words = c4_strict = c4_any = 0
    in_word, single, last, word, length = False, False, OTHER, ZERO, 0
    before, before2 = ZERO, ZERO                            # the two words before this one, in the same line
    token, token_letter = 0, False                          # code points of the token so far
    dots = 0                                                # full stops in a row, now
    line, first, final, gap = FNV_OFFSET, -1, 0, False      # the line's hash; where its text begins and ends
    bullet, ended, ellipsis, javascript, policy, long_token = False, False, False, False, False, False
    line_words = line_tokens = line_sentences = pending = 0  # pending: words since the last sentence's end
    paragraph, chars = FNV_OFFSET, 0                        # chars: of the open paragraph's lines; 0 means none is open
    i = start
    while i <= end:
        if i < end:
            point, width = decode(data, i, end)
            n_chars += 1
        else:
            point, width = np.int32(10), 1                  # the last line ends too
        i += width
        packed = table[point]
        kind, form = packed >> CLASS_SHIFT, packed & POINT_MASK
        if kind == FORMAT:
            continue

        # words
        goes_on = False
        if in_word:
            if kind == LETTER or kind == DIGIT:
                goes_on = not single
            elif kind == MARK:
                goes_on = True
            elif form == 0x27 and last == LETTER or (form == 0x2E or form == 0x2C) and last == DIGIT:
                if i < end:
                    goes_on = table[decode(data, i, end)[0]] >> CLASS_SHIFT == last
            if not goes_on:
                in_word = False
                w = fmix64(word)
                words[n_words], lengths[n_words] = w, length
                n_words += 1
                word_chars += length
                line_words += 1
                pending += 1
                if length <= 4:
                    for s in range(8):
                        if w == landmarks[s]:
                            stop_seen |= 1 << s
                if w == landmarks[8]:
                    javascript = True
                pair = before * GRAM_BASE + w
                if pair == landmarks[9]:
                    lorem = 1
                elif pair == landmarks[10] or pair == landmarks[11] or pair == landmarks[12] or pair == landmarks[13]:
                    policy = True
                triple = (before2 * GRAM_BASE + before) * GRAM_BASE + w
                if triple == landmarks[14] or triple == landmarks[15]:
                    policy = True
                before2, before = before, w
        if not in_word and (kind == LETTER or kind == DIGIT or kind == SINGLE):
            in_word, goes_on, single, word, length = True, True, kind == SINGLE, FNV_OFFSET, 0
        if goes_on:
            word = (word ^ np.uint64(form)) * FNV_PRIME
            length += 1
            if kind == LETTER or kind == DIGIT or kind == SINGLE:
                last = kind

        # tokens and lines
        if kind != SPACE:
            if first < 0:
                first = n_chars - 1
                bullet = kind == BULLET or point == 0x2A
            elif gap:
                line = (line ^ np.uint64(0x20)) * FNV_PRIME
            gap = False
            line = (line ^ np.uint64(point)) * FNV_PRIME
            final = n_chars
            token += 1
            token_letter |= kind == LETTER or kind == SINGLE
            if kind == TERMINAL:
                dots = dots + 1 if point == 0x2E else 0
                if dots == 3 or point == 0x2026:
                    n_ellipses += 1
                    ellipsis = True
                elif dots == 0:
                    ellipsis = False
                ended = True
                if pending and point >= 0x3000:             # a CJK full stop needs no space after it
                    line_sentences += 1
                    pending = 0
            else:
                dots = 0
                if kind != CLOSING and kind != MARK:
                    ended = ellipsis = False
                if point == 0x23:
                    n_hashes += 1
                elif point == 0x7B:
                    n_curly += 1
            if kind == LETTER:                              # most bytes are the rest of an ASCII word: a tight loop
                while i < end and data[i] < 0x80 and table[data[i]] >> CLASS_SHIFT == LETTER:
                    point = np.int32(data[i])
                    word = (word ^ np.uint64(table[point] & POINT_MASK)) * FNV_PRIME
                    line = (line ^ np.uint64(point)) * FNV_PRIME
                    length += 1
                    token += 1
                    n_chars += 1
                    i += 1
                final = n_chars
            continue
        gap = True
        dots = 0
        if token:
            n_tokens += 1
            line_tokens += 1
            letter_tokens += token_letter
            max_token = max(max_token, token)
            long_token |= token > C4_WORD_LENGTH
            token, token_letter = 0, False
        if ended and pending:
            line_sentences += 1
            pending = 0
        if point != 10:
            continue
        n_newlines += i <= end                              # not the one that is made up at the end
        if first < 0:                                       # a blank line ends the paragraph
            if chars:
                paragraphs[n_paragraphs], paragraph_chars[n_paragraphs] = fmix64(paragraph), chars
                n_paragraphs += 1
                paragraph, chars = FNV_OFFSET, 0
            continue
        if pending:
            line_sentences += 1
        line = fmix64(line)
        lines[n_lines], line_chars[n_lines] = line, final - first
        n_lines += 1
        paragraph = (paragraph ^ line) * GRAM_BASE
        chars += final - first
        n_sentences += line_sentences
        bullets += bullet
        ellipsis_lines += ellipsis
        terminals += ended
        shorts += final - first <= SHORT_LINE
        if javascript:
            javascript_words += line_words
        if policy:
            policy_words += line_words
        if line_tokens >= C4_LINE_WORDS and not (javascript or policy or long_token):
            c4_any += line_sentences
            if ended and not ellipsis:
                c4_strict += line_sentences
        line, first, final, gap, before, before2 = FNV_OFFSET, -1, 0, False, ZERO, ZERO
        bullet, ended, ellipsis, javascript, policy, long_token = False, False, False, False, False, False
        line_words = line_tokens = line_sentences = pending = 0
    if chars:
        paragraphs[n_paragraphs], paragraph_chars[n_paragraphs] = fmix64(paragraph), chars
        n_paragraphs += 1

    out[N_CHARS], out[N_WORDS], out[N_LINES] = n_chars, n_words, n_lines
    out[N_PARAGRAPHS], out[N_SENTENCES] = n_paragraphs, n_sentences
    out[MEAN_WORD_LENGTH], out[MAX_TOKEN_LENGTH] = ratio(word_chars, n_words), max_token
    out[MEAN_WORDS_PER_LINE], out[NEWLINE_RATIO] = ratio(n_words, n_lines), ratio(n_newlines, n_words)
    out[HASH_RATIO], out[ELLIPSIS_RATIO] = ratio(n_hashes, n_words), ratio(n_ellipses, n_words)
    out[LETTER_TOKENS] = ratio(letter_tokens, n_tokens)
    for s in range(8):
        out[STOP_WORDS] += stop_seen >> s & 1
    out[BULLET_LINES], out[ELLIPSIS_LINES] = ratio(bullets, n_lines), ratio(ellipsis_lines, n_lines)
    out[TERMINAL_LINES], out[SHORT_LINES] = ratio(terminals, n_lines), ratio(shorts, n_lines)
    out[N_CURLY], out[LOREM_IPSUM] = n_curly, lorem
    out[JAVASCRIPT_WORDS], out[POLICY_WORDS] = ratio(javascript_words, n_words), ratio(policy_words, n_words)
    out[C4_SENTENCES], out[C4_SENTENCES_ANY_END] = c4_strict, c4_any
    return n_words, n_lines, n_paragraphs


@njit
def clear(slots, n):
    """Empties as much of the hash table as n entries need (at most two thirds full); returns the index mask."""
    size = 8
    while size * 2 < n * 3:
        size *= 2
    slots[:size] = -1
    return size - 1


@njit
def find(slots, mask, keys, i):
    """The index of the first entry equal to keys[i]: i itself when it is new, which puts it into the table."""
    slot = np.int64(keys[i] & np.uint64(mask))
    while slots[slot] >= 0:
        if keys[slots[slot]] == keys[i]:
            return np.int64(slots[slot])
        slot = (slot + 1) & mask
    slots[slot] = i
    return np.int64(i)


@njit
def duplicates(keys, chars, n, slots):
    """Fractions of the entries, and of their characters, that repeat an earlier entry."""
    mask = clear(slots, n)
    repeated = repeated_chars = total = 0
    for i in range(n):
        total += chars[i]
        if find(slots, mask, keys, i) != i:
            repeated += 1
            repeated_chars += chars[i]
    return ratio(repeated, n), ratio(repeated_chars, total)


@njit
def grams(words, lengths, n_words, slots, keys, ends, counts, active, repeats, out):
    """Unique words, top 2..4-grams and duplicate 5..10-grams.

    An (n+1)-gram that occurs twice begins with an n-gram that occurs twice, so each round looks only at the
    positions (`active`) whose n-gram was not alone in the round before: few after the first rounds.
    """
    total = 0
    for i in range(n_words):
        keys[i], active[i], ends[i] = words[i], i, total
        total += lengths[i]
    ends[n_words] = total
    n_active = n_words
    for n in range(1, 11):
        mask = clear(slots, n_active)
        best, covered, until = -1, 0, 0
        for j in range(n_active):
            i = active[j]
            if n > 1:
                keys[i] = keys[i] * GRAM_BASE + words[i + n - 1]
            counts[i] = 1
            earlier = find(slots, mask, keys, i)
            repeats[j] = earlier != i
            if earlier != i:
                counts[earlier] += 1
                if n >= 5:
                    covered += ends[i + n] - ends[max(i, until)]
                    until = i + n
        distinct = 0
        for j in range(n_active):
            if repeats[j]:
                continue
            distinct += 1
            i = active[j]
            if n in (2, 3, 4) and counts[i] > 1 and (best < 0 or counts[i] > counts[best] or (
                    counts[i] == counts[best] and ends[i + n] - ends[i] > ends[best + n] - ends[best])):
                best = i
        if n == 1:
            out[UNIQUE_WORDS] = ratio(distinct, n_words)
        kept = 0
        for j in range(n_active):
            i = active[j]
            if best >= 0 and keys[i] == keys[best]:
                covered += ends[i + n] - ends[max(i, until)]
                until = i + n
            if i + n + 1 <= n_words and (repeats[j] or counts[i] > 1):
                active[kept] = i
                kept += 1
        if n > 1:
            out[GRAMS + n - 2] = ratio(covered, total)
        n_active = kept


@njit
def signature(words, n_words, permutations, hashes, out):
    """The MinHash of the document's 5-word shingles, in blocks that stay in the processor's nearest cache."""
    if n_words == 0:
        return
    width = min(5, n_words)
    oldest = np.uint64(1)
    for _ in range(width):
        oldest *= GRAM_BASE
    rolling, filled = ZERO, 0
    for i in range(n_words):
        rolling = rolling * GRAM_BASE + words[i]
        if i >= width:
            rolling -= oldest * words[i - width]
        if i >= width - 1:
            h = np.uint32(fmix64(rolling) >> np.uint64(32))
            h = np.uint32((h ^ (h >> S16)) * np.uint32(0x85EBCA6B))
            h = np.uint32((h ^ (h >> S13)) * np.uint32(0xC2B2AE35))
            hashes[filled] = h ^ (h >> S16)
            filled += 1
        if filled == len(hashes) or i == n_words - 1:
            for p in range(permutations.shape[1]):
                a, b, least = permutations[0, p], permutations[1, p], out[p]
                for k in range(filled):
                    least = min(least, np.uint32(np.uint32(a * hashes[k]) + b))
                out[p] = least
            filled = 0


@njit(types.void(_frozen(types.uint8), _frozen(types.int64), _frozen(types.int32), _frozen(types.uint64),
                 _frozen(types.uint32, 2), types.float64[:, ::1], types.uint32[:, ::1]), cache=True, nogil=True)
def measure(data, offsets, table, landmarks, permutations, signals, signatures):
    """Measures documents.

    Args:
        data: uint8, the texts' UTF-8 bytes.
        offsets: int64 of shape (n + 1,): document d is data[offsets[d]:offsets[d + 1]].
        table, landmarks: of tasks.annotate.words.
        permutations: uint32 of shape (2, permutations), of tasks.annotate.minhash.
        signals: float64 of shape (n, COLUMNS), zeros; filled.
        signatures: uint32 of shape (n, permutations), all 2**32 - 1; filled.
    """
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    words = np.empty(longest // 2 + 2, np.uint64)           # no two words without at least two bytes
    lengths = np.empty(len(words), np.int32)
    lines, line_chars = np.empty(len(words), np.uint64), np.empty(len(words), np.int32)
    paragraphs, paragraph_chars = np.empty(len(words), np.uint64), np.empty(len(words), np.int32)
    hashes = np.empty(2048, np.uint32)
    room = 0
    slots, keys, ends, counts, active, repeats = (np.empty(8, np.int32), np.empty(0, np.uint64), np.empty(0, np.int64),
                                                  np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.uint8))
    for d in range(len(offsets) - 1):
        out = signals[d]
        n_words, n_lines, n_paragraphs = scan(data, offsets[d], offsets[d + 1], table, landmarks, words, lengths,
                                              lines, line_chars, paragraphs, paragraph_chars, out)
        if room < max(n_words, n_lines) + 1:
            room = 2 * max(n_words, n_lines) + 1024
            size = 8
            while size * 2 < room * 3:
                size *= 2
            slots, keys, ends = np.empty(size, np.int32), np.empty(room, np.uint64), np.empty(room, np.int64)
            counts, active = np.empty(room, np.int32), np.empty(room, np.int32)
            repeats = np.empty(room, np.uint8)
        out[DUPLICATE_LINES], out[DUPLICATE_LINE_CHARS] = duplicates(lines, line_chars, n_lines, slots)
        out[DUPLICATE_PARAGRAPHS], out[DUPLICATE_PARAGRAPH_CHARS] = duplicates(
            paragraphs, paragraph_chars, n_paragraphs, slots)
        grams(words, lengths, n_words, slots, keys, ends, counts, active, repeats, out)
        signature(words, n_words, permutations, hashes, signatures[d])


@njit(types.int64(_frozen(types.uint8), _frozen(types.uint32), _frozen(types.uint32), _frozen(types.int32),
                 _frozen(types.float32, 2), types.int32[::1], types.int32[::1], types.float32[::1]),
      cache=True, nogil=True)
def add_likelihoods(text, moves, rows, features, table, counts, seen, scores):
    """Adds the log-likelihoods of py3langid's byte n-grams found in `text`: log(1 + count) times the table's row.

    Returns how many distinct ones there are. The sums are taken in the order of first occurrence, so no BLAS decides
    their last bits.

    Args:
        text: uint8.
        moves, rows, features: the automaton: state s goes to moves[rows[s] + byte], and features[s] is the feature
            that ends there, or -1.
        table: float32 of shape (features, classes).
        counts, seen: room, int32 of shape (features,); counts must be zeros and is left so.
        scores: float32 of shape (classes,); added to.
    """
    state, n = 0, 0
    for byte in text:
        state = moves[rows[state] + byte]
        feature = features[state]
        if feature >= 0:
            if counts[feature] == 0:
                seen[n] = feature
                n += 1
            counts[feature] += 1
    for k in range(n):
        weight = np.float32(np.log1p(np.float64(counts[seen[k]])))
        counts[seen[k]] = 0
        row = table[seen[k]]
        for c in range(len(scores)):
            scores[c] += weight * row[c]
    return n
