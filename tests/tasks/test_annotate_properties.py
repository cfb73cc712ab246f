"""What holds for any text: a naive second implementation, bounds, and freedom from history."""

import math
import random
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import schema
from tasks.annotate import Annotate
from tasks.annotate import signals as annotate_signals
from tasks.annotate.measure import measure_texts
from tasks.lines import Lines, cut_lines
from tasks.words import words

ANY = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("ab .,'\n\n…1日é")), max_size=300)
PIECES = ["a", "bb", "The", "1.5", ".", "\n", "\n\n", "漢", "ccc", "...", "- x", "ÄB", "{", "}", "٣½", "日本語"]
REPETITIVE = st.lists(st.sampled_from(PIECES), max_size=120).map(" ".join)


def table(texts: list[str]) -> pa.Table:
    return pa.table({"doc_id": schema.id_array([schema.doc_id("t", i) for i in range(len(texts))]), "text": texts},
                    schema=pa.schema([("doc_id", schema.UUID), ("text", pa.string())]))


def signals(documents: pa.Table, settings: Annotate) -> pa.Table:
    return annotate_signals(documents, cut_lines(documents, Lines(presets=[])), settings)


def measured(text: str) -> dict:
    return signals(table([text]), Annotate()).to_pylist()[0]


def fraction(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def naive(text: str) -> dict[str, float]:
    """The repetition signals as their definitions read, without a thought for speed."""
    found = {}
    lines = [" ".join(line.split()) for line in text.split("\n")]
    paragraphs, open_paragraph = [], []
    for line in [*lines, ""]:
        if line:
            open_paragraph.append(line)
        elif open_paragraph:
            paragraphs.append("\n".join(open_paragraph))
            open_paragraph = []
    lines = [line for line in lines if line]
    for name, parts in (("line", lines), ("paragraph", paragraphs)):
        repeats = [part for i, part in enumerate(parts) if part in parts[:i]]
        found[f"duplicate_{name}_fraction"] = fraction(len(repeats), len(parts))
    tokens = words(text)
    total = sum(map(len, tokens))

    def covered(starts, n):
        return fraction(sum(len(tokens[k]) for k in {k for i in starts for k in range(i, i + n)}), total)

    for n in range(2, 11):
        grams = [tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1)]
        if n < 5:
            counts = Counter(grams)
            most = max(counts.values(), default=0)
            size = {gram: sum(map(len, gram)) for gram in counts}
            top = max((gram for gram in counts if counts[gram] == most), key=size.get, default=None)
            starts = [i for i, gram in enumerate(grams) if gram == top] if most > 1 else []
            found[f"top_{n}gram_char_fraction"] = covered(starts, n)
        else:
            seen, starts = set(), []
            for i, gram in enumerate(grams):
                if gram in seen:
                    starts.append(i)
                seen.add(gram)
            found[f"duplicate_{n}gram_char_fraction"] = covered(starts, n)
            counts = Counter(grams)
            found[f"repeated_{n}gram_char_fraction"] = covered([i for i, g in enumerate(grams) if counts[g] > 1], n)
    spelled = [[char for char in line if not char.isspace()] for line in lines]
    widths = [len(line.strip()) for line in text.split("\n") if line.strip()]
    shares = [(sum(map(str.isupper, line)) / width, sum(unicodedata.category(c)[0] == "N" for c in line) / width)
              for line, width in zip(spelled, widths, strict=True)]
    entropy = -sum(n / len(tokens) * math.log(n / len(tokens)) for n in Counter(tokens).values())
    found |= {"unigram_entropy": round(entropy, 8),
              "curly_bracket_fraction": fraction(sum(map(text.count, "{}")), len(text)),
              "mean_line_uppercase_fraction": fraction(sum(a for a, _ in shares), len(shares)),
              "mean_line_digit_fraction": fraction(sum(b for _, b in shares), len(shares)),
              "uppercase_line_fraction": fraction(sum(a > 0.5 for a, _ in shares), len(shares)),
              "one_word_line_fraction": fraction(sum(len(words(line)) == 1 for line in lines), len(lines))}
    found |= {"n_words": len(tokens), "n_chars": len(text), "n_lines": len(lines), "n_paragraphs": len(paragraphs),
              "unique_word_fraction": fraction(len(set(tokens)), len(tokens)),
              "mean_word_length": fraction(total, len(tokens))}
    return found


@given(REPETITIVE)
@settings(max_examples=150, deadline=None)
def test_equal_to_the_naive_reference(text):
    found = measured(text)
    for name, value in naive(text).items():
        assert found[name] == pytest.approx(value, abs=1e-8 if name == "unigram_entropy" else 1e-12), name


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_naive_reference_on_long_texts(seed):
    chance = random.Random(seed)
    vocabulary = ["w" + "x" * chance.randrange(8) + str(i) for i in range(10 ** (1 + seed % 3))]
    text = "".join(chance.choice(vocabulary) + chance.choice([" ", " ", " ", ". ", "\n"]) for _ in range(1500))
    found = measured(text)
    for name, value in naive(text).items():
        assert found[name] == pytest.approx(value, abs=1e-8 if name == "unigram_entropy" else 1e-12), name


@given(ANY)
@settings(max_examples=200, deadline=None)
def test_any_text_is_measured_within_bounds(text):
    found = measured(text)
    assert found["n_words"] == len(words(text)) and found["n_chars"] == len(text)
    for name, value in found.items():
        if value is None:
            continue
        if name.endswith("_fraction") or name == "language_score":
            assert 0.0 <= value <= 1.0, name
        elif isinstance(value, (int, float)):
            assert value >= 0, name
    assert found["n_lines"] >= found["n_paragraphs"] and found["c4_sentences_any_end"] >= found["c4_sentences"]
    assert found["n_sentences"] >= found["c4_sentences_any_end"]


@given(st.lists(st.one_of(ANY, REPETITIVE), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_document_measures_the_same_in_any_company(texts, chance):
    columns = [name for name in signals(table([]), Annotate()).schema.names if name not in ("doc_id", "row")]

    def rows(batch):
        return signals(table(batch), Annotate()).select(columns).to_pylist()

    together = rows(texts)
    order = list(range(len(texts)))
    chance.shuffle(order)
    assert [together[i] for i in order] == rows([texts[i] for i in order])
    assert together == [row for text in texts for row in rows([text])]


def test_slices_and_chunks_measure_like_whole_arrays():
    texts = ["first one here", "second one", "", "the third, which is longer than the others", "é日"]
    whole = measure_texts(pa.array(texts, pa.large_string()))
    sliced = measure_texts(pa.array(["x", *texts, "y"], pa.large_string()).slice(1, len(texts)))
    assert (whole[0] == sliced[0]).all() and (whole[1] == sliced[1]).all()
    chunked = pa.table({"doc_id": table(texts)["doc_id"], "text": pa.chunked_array([texts[:2], [], texts[2:]])})
    assert signals(chunked, Annotate()).equals(signals(table(texts), Annotate()))
