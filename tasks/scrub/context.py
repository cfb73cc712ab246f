"""Which words that name something stand in a short piece of text."""

import re
from collections.abc import Iterable
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_STEM = 3   # letters by which words are looked up; those that may go on have as many


class Names:
    """Lists of words, `|` between them: each list is one meaning.

    A word counts where it stands whole; one that ends with `~` may go on. Case does not count, nor what separates the
    words of a phrase. Words of scripts that do not separate words count anywhere.
    """

    def __init__(self, lists: Iterable[str]):
        self._words: dict[str, list[tuple[tuple[str, ...], bool, str]]] = {}
        self._anywhere: list[tuple[str, str]] = []
        for names in dict.fromkeys(filter(None, lists)):
            for name in names.casefold().split("|"):
                words, goes_on = tuple(_WORD.findall(name)), name.endswith("~")
                if not name[0].isascii() and name[0].upper() == name[0].lower():
                    self._anywhere.append((name.removesuffix("~"), names))
                else:
                    self._words.setdefault(words[0][:_STEM], []).append((words, goes_on, names))

    def within(self, text: str) -> frozenset[str]:
        """The lists of which `text` holds a word."""
        text = text.casefold()
        words = _WORD.findall(text)
        found = set()
        for at, word in enumerate(words):
            for phrase, goes_on, names in self._words.get(word[:_STEM], ()):
                last = len(phrase) - 1
                there = words[at + last] if at + last < len(words) else ""
                if (there.startswith(phrase[-1]) if goes_on else there == phrase[-1]) and (
                        not last or tuple(words[at:at + last]) == phrase[:-1]):
                    found.add(names)
        if not text.isascii():
            found.update(names for name, names in self._anywhere if name in text)
        return frozenset(found)


@lru_cache(maxsize=8)
def names_of(lists: tuple[str, ...]) -> Names:
    """`Names`, made once."""
    return Names(lists)
