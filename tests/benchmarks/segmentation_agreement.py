"""How our words of scripts without spaces agree with reference segmenters: F1 of the word boundaries inside runs.

    pip install jieba fugashi ipadic pythainlp khmer-nltk icu4py      # wherever this Python finds them
    GRISTMILL_SHARED=... python tests/benchmarks/segmentation_agreement.py

The texts are the sentences of langid/ in the folder that GRISTMILL_SHARED names. A boundary counts when it lies between
two characters of one run of letters of such a script; punctuation and spaces are boundaries for everybody.
"""

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np

from tasks.annotate.segment import dictionary, word_starts
from tasks.words import CLASS_SHIFT, MARK, SINGLE, code_points


def sentences(language: str) -> list[str]:
    found = []
    for path in sorted((Path(os.environ["GRISTMILL_SHARED"]) / "data/langid").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            found += [row["text"] for row in map(json.loads, file) if row["lang"] == language]
    return found


def ours(text: str) -> set[int]:
    data = np.frombuffer(text.encode(), np.uint8)
    data.setflags(write=False)
    found = np.empty(len(data) // 3 + 2, np.int64)
    n = word_starts(data, np.array([0, len(data)]), code_points(), *dictionary(), found)
    place, places = 0, {}
    for i, char in enumerate(text):
        places[place] = i
        place += len(char.encode())
    return {places[at] for at in found[:n].tolist()}


def boundaries(words: list[str]) -> set[int]:
    found, at = set(), 0
    for word in words:
        found.add(at)
        at += len(word)
    return found


def inside(text: str) -> set[int]:
    """Places between two characters of one run."""
    kinds = [int(code_points()[ord(char)]) >> CLASS_SHIFT for char in text]
    return {i for i in range(1, len(text)) if kinds[i] == SINGLE and kinds[i - 1] in (SINGLE, MARK)
            and any(k == SINGLE for k in kinds[max(0, i - 4):i])}


def icu(locale: str):
    from icu4py.breakers import WordBreaker
    return lambda text: [str(part) for part in WordBreaker(text, locale)]


def references():
    """(language, name, function from text to words) of what is installed."""
    import fugashi
    import ipadic
    import jieba
    import khmernltk
    import pythainlp

    jieba.initialize()
    tagger = fugashi.GenericTagger(ipadic.MECAB_ARGS)

    def mecab(text):
        return [str(word.surface) for word in tagger(text)]

    return [("zh", "jieba", jieba.lcut), ("yue", "jieba", jieba.lcut), ("ja", "MeCab with IPADIC", mecab),
            ("th", "PyThaiNLP newmm", pythainlp.word_tokenize), ("km", "khmer-nltk", khmernltk.word_tokenize),
            *((language, "ICU 78", icu(language)) for language in ("zh", "yue", "ja", "th", "km"))]


def main() -> None:
    for language, name, segment in references():
        texts = sentences(language)
        hits = mine = theirs = letters = 0
        spent = 0.0
        for text in texts:
            began = time.process_time()
            words = segment(text)
            spent += time.process_time() - began
            if "".join(words) != text:                      # MeCab leaves spaces out: put them back
                rest, parts = text, []
                for word in words:
                    at = rest.find(word)
                    parts += [rest[:at], word] if at else [word]
                    rest = rest[at + len(word):]
                words = [*parts, rest]
            allowed = inside(text)
            found, expected = ours(text) & allowed, boundaries(words) & allowed
            hits, mine, theirs = hits + len(found & expected), mine + len(found), theirs + len(expected)
            letters += len(text.encode())
        precision, recall = hits / max(mine, 1), hits / max(theirs, 1)
        print(f"{language:4} {name:18} {len(texts):5} sentences  precision {precision:.3f}  recall {recall:.3f}  "
              f"F1 {2 * precision * recall / max(precision + recall, 1e-9):.3f}   {letters / 1e6 / spent:.2f} MB/s")


if __name__ == "__main__":
    main()
