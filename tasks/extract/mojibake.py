"""Text that was decoded twice: UTF-8 read as windows-1252, windows-1251, Mac Roman or cp437, and written again.

ftfy repairs it, at about 2 MB of text per second; so only the lines are given to it in which a search for typical
sequences finds one. ftfy has its own doubts (https://ftfy.readthedocs.io/en/latest/heuristic.html), so a line of honest
text that has such a sequence (É» in French capitals) stays as it is.
"""

import re

MAX_IN_VAIN = 1000           # different lines of a page, 0.2 ms each, before the rest is believed to be honest too


def _following(code_page: str) -> str:
    """A character class of what the bytes 80 to BF, which follow in UTF-8, look like in a code page."""
    return "[" + re.escape(bytes(range(0x80, 0xc0)).decode(code_page, "ignore")) + "]"


_WEST = f"(?:[\x80-\xbf]|{_following('cp1252')})"
_CYRILLIC, _MAC, _DOS = _following("cp1251"), _following("mac-roman"), _following("cp437")
# The first byte of a character (C2, C3: Latin; D0, D1: Cyrillic; E2: punctuation), then those that follow. The class of
# all first ones stands alone in front, because a search for a class is ten times faster than one for alternatives.
_SEQUENCES = re.compile(
    "[\xc2-\xf4РСв√¬‚Γ├┬╨╤](?:"
    f"(?<=[\xc2-\xdf]){_WEST}|(?<=[\xe0-\xef]){_WEST}{{2}}|(?<=[\xf0-\xf4]){_WEST}{{3}}"
    f"|(?<=[РС]){_CYRILLIC}[РС]{_CYRILLIC}|(?<=в){_CYRILLIC}{{2}}"
    f"|(?<=[√¬]){_MAC}|(?<=‚){_MAC}{{2}}"
    f"|(?<=[├┬╨╤]){_DOS}|(?<=Γ){_DOS}{{2}})")


def repair(text: str) -> str:
    """`text` with the lines mended that were decoded twice; everything else as it is.

    A line that comes again is tried once, and after MAX_IN_VAIN different lines that ftfy left as they were no new one
    is tried. What comes out stays as it is when it is repaired again.
    """
    if text.isascii() or not _SEQUENCES.search(text):
        return text
    from ftfy import fix_encoding  # 0.1 s that most processes do without

    lines, tried, in_vain = text.split("\n"), {}, 0
    for n, line in enumerate(lines):
        if line in tried:
            lines[n] = tried[line]
        elif in_vain < MAX_IN_VAIN and _SEQUENCES.search(line):
            lines[n] = tried[line] = fix_encoding(line)
            in_vain += lines[n] == line
    return "\n".join(lines)
