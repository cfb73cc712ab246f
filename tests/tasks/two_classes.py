"""Texts of two classes that share most of their words, for tests of classifiers of quality."""

import random

COMMON = [f"word{i}" for i in range(300)]
GOOD = [f"thought{i}" for i in range(60)]
BAD = [f"click{i}" for i in range(60)]


def text_of(good: bool, number: int, words: int = 60) -> str:
    """A text of one class, always the same for the same number: one word in five is of the class."""
    chance = random.Random(number * 2 + good)
    own = GOOD if good else BAD
    return " ".join(chance.choice(own if chance.random() < 0.2 else COMMON) for _ in range(words)).capitalize() + "."
