"""Our signals beside datatrove's and RedPajama-V2's own code on the same texts: how often they agree, and how far not.

    GRISTMILL_SHARED=... PEER_PACKAGES=<site-packages with datatrove 0.10.1, spacy, nltk> \\
    REDPAJAMA=<checkout of togethercomputer/RedPajama-Data>/app/src \\
    python tests/benchmarks/signal_agreement.py [DOCUMENTS]

The texts are the human main texts of the shared web pages in English, the first DOCUMENTS (400) of them. "close": the
share of documents whose values differ by at most 0.01 (counts: by at most 1 %). Lines that begin with `=` are of the
reference's functions fed with our words and lines and divided by what we divide by: only the arithmetic can differ.
"""

import gzip
import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

for place in ("PEER_PACKAGES", "REDPAJAMA"):
    if place in os.environ:
        sys.path.append(os.environ[place])                  # behind: what this Python has of its own goes first


def texts(n: int) -> list[str]:
    found = []
    with gzip.open(Path(os.environ["GRISTMILL_SHARED"]) / "data/web/webpages_dev.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            text = row.get("gold_text")
            if text and len(text) > 200 and (row.get("lang_guess") or "en") == "en":
                found.append(text)
    return found[:n]


def ours(documents: list[str]) -> dict[str, np.ndarray]:
    from tasks.annotate.lexicon import lexicon
    from tasks.annotate.measure import TEXT, measure_texts

    words = lexicon()
    measured, _ = measure_texts(pa.array(documents, pa.large_string()),
                                np.full(len(documents), words.languages["en"], np.int32), words)
    return dict(zip(TEXT, measured.T, strict=True))


def datatrove(text: str) -> dict[str, float]:
    """What gopher_quality_filter, gopher_repetition_filter and fineweb_quality_filter compute before they compare."""
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition
    from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_words

    words = split_into_words(text, "eng_Latn")
    plain = [word for word in words if any(char not in PUNCTUATION_SET for char in word)]
    lines = text.splitlines()
    filled = [line for line in text.split("\n") if line.strip()]
    found = {
        "n_words": len(plain), "mean_word_length": float(np.mean([len(w) for w in plain])),
        "hash_word_ratio": text.count("#") / len(words),
        "ellipsis_word_ratio": (text.count("...") + text.count("…")) / len(words),
        "bullet_line_fraction": sum(s.lstrip().startswith(("•", "-")) for s in lines) / len(lines),
        "ellipsis_line_fraction": sum(s.rstrip().endswith(("...", "…")) for s in lines) / len(lines),
        "letter_piece_fraction": sum(any(c.isalpha() for c in w) for w in words) / len(words),
        "n_stop_words": len(set(STOP_WORDS) & set(words)),
        "terminal_line_fraction": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in filled) / len(filled),
        "short_line_fraction": sum(len(line) <= 30 for line in filled) / len(filled),
        "newline_word_ratio": text.count("\n") / len(words)}
    for name, parts in (("line", [p for p in text.split("\n") if p]),
                        ("paragraph", [p for p in text.strip().split("\n\n") if p])):
        n, chars = repetition.find_duplicates(parts)
        found[f"duplicate_{name}_fraction"] = n / len(parts)
        found[f"duplicate_{name}_char_fraction"] = chars / len(text)
    for n in (2, 3, 4):
        grams = repetition.get_n_grams(words, n)
        found[f"top_{n}gram_char_fraction"] = repetition.find_top_duplicate(grams) / len(text) if grams else 0.0
    for n in range(5, 11):
        found[f"duplicate_{n}gram_char_fraction"] = repetition.find_all_duplicate(words, n) / len(text)
    return found


def datatrove_fed(text: str) -> dict[str, float]:
    """The same functions over our lines and words, divided by what we divide by."""
    from datatrove.pipeline.filters import gopher_repetition_filter as repetition

    from tasks.words import words

    found, ours_words = {}, words(text)
    lines = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    n, chars = repetition.find_duplicates(lines)
    found["duplicate_line_fraction"] = n / len(lines)
    found["duplicate_line_char_fraction"] = chars / sum(map(len, lines))
    total = sum(map(len, ours_words))
    for n in (2, 3, 4):
        grams = repetition.get_n_grams(ours_words, n)
        top, count = Counter(grams).most_common(1)[0] if grams else ("", 0)
        found[f"top_{n}gram_char_fraction"] = len(top.replace(" ", "")) * count / total if count > 1 else 0.0
    for n in range(5, 11):
        found[f"duplicate_{n}gram_char_fraction"] = repetition.find_all_duplicate(ours_words, n) / total
    return found


def redpajama(text: str) -> dict[str, float]:
    """The rps_ signals of one document under our names, lines as means over lines that are not blank."""
    from core.document import Document
    from core.quality_signals import content, lines, natural_language, repetitions
    from core.quality_signals.utils.stop_words import get_stop_words

    document = Document(text, domain=None)
    raw, filled = document.num_raw_words, [bool(line.text.strip()) for line in document.raw_lines]

    def value(signal):
        return float(signal(document)[0][2] or 0.0)

    def mean(signal):
        found = [score for (_, _, score), keep in zip(signal(document), filled, strict=True) if keep]
        return float(np.mean(found))

    found = {
        "n_words": value(natural_language.RPS_Doc_Word_Count()),
        "n_sentences": value(natural_language.RPS_Doc_Num_Sentences()),
        "mean_word_length": value(natural_language.RPS_Doc_Mean_Word_Length()),
        "unique_word_fraction": value(natural_language.RPS_Doc_Frac_Unique_Words()),
        "unigram_entropy": value(natural_language.RPS_Doc_Unigram_Entropy()),
        "ellipsis_line_fraction": value(natural_language.RPS_Doc_Frac_Lines_End_With_Ellipsis()),
        "letter_piece_fraction": 1 - value(natural_language.RPS_Doc_Frac_No_Alph_Words()),
        "symbols / pieces": value(natural_language.RPS_Doc_Symbol_To_Word_Ratio()),
        "n_pieces": raw,
        "all caps / pieces": value(natural_language.RPS_Doc_Frac_All_Caps_Words()),
        "curly_bracket_fraction": value(content.RPS_Doc_Curly_Bracket()),
        "stop words / pieces": sum(w in get_stop_words("en") for w in document.raw_words) / raw,
        "bullet_line_fraction": mean(lines.RPS_Lines_Start_With_Bulletpoint()),
        "terminal_line_fraction": mean(lines.RPS_Lines_Ending_With_Terminal_Punctution_Mark()),
        "mean_words_per_line": mean(lines.RPS_Lines_Num_Words()),
        "mean_line_uppercase_fraction": mean(lines.RPS_Lines_Uppercase_Letter_Fraction()),
        "mean_line_digit_fraction": mean(lines.RPS_Lines_Numerical_Chars_Fraction())}
    for n in (2, 3, 4):
        found[f"top_{n}gram_char_fraction"] = value(getattr(repetitions, f"RPS_Doc_Frac_Chars_Top_{n}gram")())
    for n in range(5, 11):
        found[f"repeated_{n}gram_char_fraction"] = value(getattr(repetitions, f"RPS_Doc_Frac_Chars_Dupe_{n}Grams")())
    return found


def redpajama_fed(text: str) -> dict[str, float]:
    """Its functions over normalised words fed with ours."""
    from core.quality_signals import natural_language, repetitions

    from tasks.words import words

    class Document:
        normalized_words = tuple(words(text))
        num_normalized_words = len(normalized_words)

        def __len__(self):
            return len(text)

    def value(signal):
        return float(signal(Document())[0][2] or 0.0)

    found = {"mean_word_length": value(natural_language.RPS_Doc_Mean_Word_Length()),
             "unique_word_fraction": value(natural_language.RPS_Doc_Frac_Unique_Words()),
             "unigram_entropy": value(natural_language.RPS_Doc_Unigram_Entropy())}
    for n in (2, 3, 4):
        found[f"top_{n}gram_char_fraction"] = value(getattr(repetitions, f"RPS_Doc_Frac_Chars_Top_{n}gram")())
    for n in range(5, 11):
        found[f"repeated_{n}gram_char_fraction"] = value(getattr(repetitions, f"RPS_Doc_Frac_Chars_Dupe_{n}Grams")())
    return found


THRESHOLDS = {               # Gopher's and FineWeb's; 1: at least, -1: at most
    "n_words": (50, 1), "letter_piece_fraction": (0.8, 1), "hash_word_ratio": (0.1, -1), "n_stop_words": (2, 1),
    "ellipsis_word_ratio": (0.1, -1), "bullet_line_fraction": (0.9, -1), "ellipsis_line_fraction": (0.3, -1),
    "terminal_line_fraction": (0.12, 1), "short_line_fraction": (0.67, -1), "newline_word_ratio": (0.3, -1),
    "duplicate_line_fraction": (0.3, -1), "duplicate_paragraph_fraction": (0.3, -1),
    "duplicate_line_char_fraction": (0.2, -1), "duplicate_paragraph_char_fraction": (0.2, -1),
    **{f"top_{n}gram_char_fraction": (limit, -1) for n, limit in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"{kind}_{n}gram_char_fraction": (round(0.2 - n / 100, 2), -1) for n in range(5, 11)
       for kind in ("duplicate", "repeated")}}


def main() -> None:
    documents = texts(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
    mine = ours(documents)
    share = mine["n_words"] / mine["n_pieces"]
    mine |= {"symbols / pieces": (mine["hash_word_ratio"] + mine["ellipsis_word_ratio"]) * share,
             "all caps / pieces": mine["all_caps_word_fraction"] * share,
             "stop words / pieces": mine["stop_word_fraction"] * share}
    print(f"{len(documents)} documents")
    for title, reference in (("datatrove", datatrove), ("= datatrove", datatrove_fed), ("RedPajama-V2", redpajama),
                             ("= RedPajama-V2", redpajama_fed)):
        theirs = [reference(text) for text in documents]
        for name in theirs[0]:
            other, own = np.array([row[name] for row in theirs], float), mine[name]
            gap = np.abs(own - other)
            near = gap <= (0.01 * np.maximum(other, 1) if name.startswith(("n_", "mean_w")) else 0.01)
            line = (f"{title:17} {name:34} close {near.mean():6.1%}  greatest {gap.max():8.4f}  "
                    f"mean {own.mean():8.4f} / {other.mean():8.4f}")
            if name in THRESHOLDS:
                limit, sign = THRESHOLDS[name]
                same = (sign * (own - limit) >= 0) == (sign * (other - limit) >= 0)
                line += f"  same side of {limit}: {same.mean():.1%}"
            print(line)


if __name__ == "__main__":
    main()
