"""One compiled pass over documents' UTF-8 bytes: words, lines and paragraphs as hashes, and what is counted on the way.

numba's cache on disk is renewed when the file of the called function changes, and does not see changes in others:
so each compiled file of this package stands alone, gets everything else as an argument, and hands arrays to the next
(`tasks.annotate.measure` calls them in turn). Nothing outlives a document but buffers that are set anew.

The definitions of the signals are in `tasks.annotate.measure.TEXT`.
"""

import numpy as np
from numba import types

from tasks.compiled import njit


def _frozen(dtype, dimensions=1):
    return types.Array(dtype, dimensions, "C", readonly=True)


# The columns that `scan` fills.
(N_CHARS, N_WORDS, N_LINES, N_PARAGRAPHS, N_SENTENCES, MEAN_WORD_LENGTH, MAX_TOKEN_LENGTH, MEAN_WORDS_PER_LINE,
 HASH_RATIO, ELLIPSIS_RATIO, LETTER_TOKENS, STOP_WORDS, NEWLINE_RATIO,
 BULLET_LINES, ELLIPSIS_LINES, TERMINAL_LINES, SHORT_LINES, N_CURLY, LOREM_IPSUM, JAVASCRIPT_WORDS, POLICY_WORDS,
 C4_SENTENCES, C4_SENTENCES_ANY_END, N_PIECES, LETTER_PIECES, ALL_CAPS_WORDS, CURLY_BRACKETS, N_LOREM_IPSUM,
 UPPERCASE_CHARS, DIGIT_CHARS, UPPERCASE_LINES, NUMERIC_LINES, COUNTER_LINES, ONE_WORD_LINES, MEAN_LINE_UPPERCASE,
 MEAN_LINE_DIGITS) = range(36)
COLUMNS = 36

# tasks.words' classes and constants, which the compiler needs as literals here (a test compares).
OTHER, LETTER, DIGIT, MARK, SINGLE, FORMAT, SPACE, TERMINAL, CLOSING, BULLET = range(10)
CLASS_SHIFT, POINT_MASK = 21, (1 << 21) - 1
FNV_OFFSET, FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
GRAM_BASE = np.uint64(0x9E3779B97F4A7C15)
ZERO, ENDERS = np.uint64(0), np.uint64(1023)

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
def _document(data, start, end, table, upper, landmarks, enders, counters, starts, s, words, lengths, lines, line_chars,
              paragraphs, paragraph_chars, out):
    """Fills the arrays of word, line and paragraph hashes and lengths, and the signals that need no memory of them.

    Returns the numbers of words, lines and paragraphs, and the first of `starts` that lies behind.
    """
    n_chars = n_words = n_lines = n_paragraphs = n_sentences = n_newlines = n_hashes = n_ellipses = n_curly = 0
    n_tokens = letter_tokens = max_token = word_chars = stop_seen = n_closing = n_symbols = letter_words = caps = 0
    bullets = ellipsis_lines = terminals = shorts = lorem = javascript_words = policy_words = c4_strict = c4_any = 0
    chars_in_lines = capitals = digits = uppercase_lines = numeric_lines = counter_lines = one_words = 0
    capital_shares = digit_shares = 0.0
    in_word, single, last, word, length = False, False, OTHER, ZERO, 0
    word_capitals = word_letters = line_capitals = line_digits = 0
    line_letters, in_symbols, numbered = False, False, False    # numbered: the first word of the line begins so
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
        place = i
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
            elif kind == SINGLE:
                goes_on = single
                if single and s < len(starts) and starts[s] == place:
                    goes_on = False
                    s += 1
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
                letter_words += word_letters > 0
                caps += word_capitals > 0 and word_capitals == word_letters
                line_capitals += word_capitals
                line_letters |= word_letters > 0
                line_words += 1
                pending += 1
                if enders[w & ENDERS]:
                    for k in range(8):
                        if w == landmarks[k]:
                            stop_seen |= 1 << k
                    javascript |= w == landmarks[8]
                    pair = before * GRAM_BASE + w
                    lorem += pair == landmarks[9]
                    for k in range(10, 14):
                        policy |= pair == landmarks[k]
                    triple = (before2 * GRAM_BASE + before) * GRAM_BASE + w
                    policy |= triple == landmarks[14] or triple == landmarks[15]
                before2, before = before, w
        if not in_word and (kind == LETTER or kind == DIGIT or kind == SINGLE):
            in_word, goes_on, single, word, length = True, True, kind == SINGLE, FNV_OFFSET, 0
            word_capitals = word_letters = 0
            if line_words == 0:
                numbered = kind == DIGIT
        if goes_on:
            in_symbols = False
            if kind == DIGIT:
                line_digits += 1
            elif kind != MARK:
                word_letters += kind == LETTER or kind == SINGLE
                word_capitals += form != point and upper[point]
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
            if not goes_on and not in_symbols:
                in_symbols = True
                n_symbols += 1
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
                elif point == 0x7D:
                    n_closing += 1
            if kind == LETTER:                              # most bytes are the rest of an ASCII word: a tight loop
                while i < end:
                    point = np.int32(data[i])
                    small = point | 0x20
                    if small < 0x61 or small > 0x7A:
                        break
                    word = (word ^ np.uint64(small)) * FNV_PRIME
                    line = (line ^ np.uint64(point)) * FNV_PRIME
                    length += 1
                    word_capitals += (point >> 5 & 1) ^ 1
                    word_letters += 1
                    token += 1
                    n_chars += 1
                    i += 1
                final = n_chars
            continue
        gap = True
        in_symbols = False
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
        width = final - first
        chars += width
        chars_in_lines += width
        capitals += line_capitals
        digits += line_digits
        capital_shares += line_capitals / width
        digit_shares += line_digits / width
        uppercase_lines += 2 * line_capitals > width
        numeric_lines += line_digits > 0 and not line_letters
        one_words += line_words == 1
        if line_words == 2 and numbered:
            for k in range(len(counters)):
                counter_lines += before == counters[k]
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
        line_words = line_tokens = line_sentences = pending = line_capitals = line_digits = 0
        line_letters = False
    if chars:
        paragraphs[n_paragraphs], paragraph_chars[n_paragraphs] = fmix64(paragraph), chars
        n_paragraphs += 1

    out[N_CHARS], out[N_WORDS], out[N_LINES] = n_chars, n_words, n_lines
    out[N_PARAGRAPHS], out[N_SENTENCES] = n_paragraphs, n_sentences
    out[MEAN_WORD_LENGTH], out[MAX_TOKEN_LENGTH] = ratio(word_chars, n_words), max_token
    out[MEAN_WORDS_PER_LINE], out[NEWLINE_RATIO] = ratio(n_words, n_lines), ratio(n_newlines, n_words)
    out[HASH_RATIO], out[ELLIPSIS_RATIO] = ratio(n_hashes, n_words), ratio(n_ellipses, n_words)
    out[LETTER_TOKENS] = ratio(letter_tokens, n_tokens)
    for k in range(8):
        out[STOP_WORDS] += stop_seen >> k & 1
    out[BULLET_LINES], out[ELLIPSIS_LINES] = ratio(bullets, n_lines), ratio(ellipsis_lines, n_lines)
    out[TERMINAL_LINES], out[SHORT_LINES] = ratio(terminals, n_lines), ratio(shorts, n_lines)
    out[N_CURLY], out[LOREM_IPSUM], out[N_LOREM_IPSUM] = n_curly, lorem > 0, lorem
    out[JAVASCRIPT_WORDS], out[POLICY_WORDS] = ratio(javascript_words, n_words), ratio(policy_words, n_words)
    out[C4_SENTENCES], out[C4_SENTENCES_ANY_END] = c4_strict, c4_any
    out[N_PIECES], out[LETTER_PIECES] = n_words + n_symbols, ratio(letter_words, n_words + n_symbols)
    out[ALL_CAPS_WORDS], out[CURLY_BRACKETS] = ratio(caps, n_words), ratio(n_curly + n_closing, n_chars)
    out[UPPERCASE_CHARS], out[DIGIT_CHARS] = ratio(capitals, chars_in_lines), ratio(digits, chars_in_lines)
    out[UPPERCASE_LINES], out[NUMERIC_LINES] = ratio(uppercase_lines, n_lines), ratio(numeric_lines, n_lines)
    out[COUNTER_LINES], out[ONE_WORD_LINES] = ratio(counter_lines, n_lines), ratio(one_words, n_lines)
    out[MEAN_LINE_UPPERCASE], out[MEAN_LINE_DIGITS] = ratio(capital_shares, n_lines), ratio(digit_shares, n_lines)
    return n_words, n_lines, n_paragraphs, s


@njit(types.void(_frozen(types.uint8), _frozen(types.int64), _frozen(types.int32), _frozen(types.uint8),
                 _frozen(types.uint64), _frozen(types.boolean), _frozen(types.uint64), types.int64[::1],
                 types.uint64[::1], types.int32[::1], types.uint64[::1], types.int32[::1], types.uint64[::1],
                 types.int32[::1], types.int64[:, ::1], types.float64[:, ::1]), cache=True, nogil=True)
def scan(data, offsets, table, upper, landmarks, enders, counters, starts, words, lengths, lines, line_chars,
         paragraphs, paragraph_chars, ends, signals):
    """Reads documents once.

    Args:
        data: uint8, the texts' UTF-8 bytes.
        offsets: int64 of shape (n + 1,): document d is data[offsets[d]:offsets[d + 1]].
        table, upper, landmarks, enders: of tasks.words: of code points, of capital letters, of the words and
            phrases looked for, of the low bits of the hashes of the words that may end these.
        counters: uint64, hashes of what is counted in lines that count.
        starts: of tasks.annotate.segment.word_starts, for these documents.
        words, lengths: filled with the hashes (uint64) and lengths in code points (int32) of all words, document by
            document; a word for two bytes and one for each document is room enough. So for lines and paragraphs.
        ends: int64 of shape (n + 1, 3): row 0 is 0; row d + 1 is filled with where the document's words, lines and
            paragraphs end.
        signals: float64 of shape (n, COLUMNS or more), zeros; the first COLUMNS are filled.
    """
    s = 0
    for d in range(len(offsets) - 1):
        w, k, p = ends[d, 0], ends[d, 1], ends[d, 2]
        n_words, n_lines, n_paragraphs, s = _document(
            data, offsets[d], offsets[d + 1], table, upper, landmarks, enders, counters, starts, s, words[w:],
            lengths[w:], lines[k:], line_chars[k:], paragraphs[p:], paragraph_chars[p:], signals[d])
        ends[d + 1, 0], ends[d + 1, 1], ends[d + 1, 2] = w + n_words, k + n_lines, p + n_paragraphs
