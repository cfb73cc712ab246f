"""How well languages are told, and what their scores are worth, beside py3langid, CLD2 and resiliparse as they come.

    GRISTMILL_SHARED=... python tests/benchmarks/language_quality.py

Reads langid/lingua_sentences_dev and langid/tatoeba_dev. Macro-accuracy is the mean over languages. The reliability
table and the expected calibration error (ECE, ten bins) are over the claimed languages, sentences as they are and
joined to longer texts (with a seed). Sentences a second are CPU time of one core, all detectors in one sitting.
"""

import collections
import gzip
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.annotate.language import CLAIMED, UNDETERMINED, Language, code, identify


def read(name: str) -> list[tuple[str, str]]:
    path = Path(os.environ["GRISTMILL_SHARED"]) / "data" / "langid" / f"{name}_dev.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(code(row.get("lang") or row["lang3"]), row["text"]) for row in rows]


def joined(rows: list[tuple[str, str]], sentences: int, texts: int) -> list[tuple[str, str]]:
    chance, by = random.Random(0), collections.defaultdict(list)
    for language, text in rows:
        by[language].append(text)
    return [(language, "\n".join(chance.sample(by[language], sentences)))
            for language in sorted(by) for _ in range(texts) if len(by[language]) >= sentences]


def detectors() -> dict:
    import pycld2
    from py3langid.langid import MODEL_FILE, LanguageIdentifier
    from resiliparse.parse.lang import detect_fast

    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def ours(texts):
        found = identify(pa.array(texts, pa.large_string()), np.ones(len(texts), bool), Language())
        return found["language"].to_pylist(), found["language_score"].to_pylist()

    def py3langid(texts):
        labels, scores = zip(*(theirs.classify(text) for text in texts), strict=True)
        return [code(label) for label in labels], scores

    def cld2(texts):
        codes, scores = [], []
        for text in texts:
            try:
                answer = pycld2.detect(text, bestEffort=True)[2][0]
            except pycld2.error:
                answer = (None, UNDETERMINED, 0)
            codes.append(code({"iw": "he", "zh-Hant": "zh"}.get(answer[1], answer[1])))
            scores.append(answer[2] / 100)
        return codes, scores

    def resiliparse(texts):
        return [code(detect_fast(text)[0]) for text in texts], [float("nan")] * len(texts)

    return {"gristmill": ours, "py3langid": py3langid, "CLD2": cld2, "resiliparse": resiliparse}


def macro(rows, codes, languages) -> float:
    right = collections.defaultdict(list)
    for (language, _), found in zip(rows, codes, strict=True):
        right[language].append(language == found)
    return float(np.mean([np.mean(hits) for language, hits in right.items() if language in languages]))


def reliability(rows, codes, scores) -> tuple[float, list[tuple[float, int, float, float]], tuple[float, float, float]]:
    """(ECE, rows of (from, texts, mean score, precision), (precision, mean score, share) of scores from 0.65)."""
    kept = np.array([language in CLAIMED for language, _ in rows])
    right = np.array([language == found for (language, _), found in zip(rows, codes, strict=True)])[kept]
    scores = np.array(scores)[kept]
    table, error = [], 0.0
    tenths = np.minimum(np.nan_to_num(scores, nan=-1.0) * 10, 9).astype(int)
    for tenth in range(10):
        inside = tenths == tenth
        if inside.any():
            table.append((tenth / 10, int(inside.sum()), scores[inside].mean(), right[inside].mean()))
            error += abs(scores[inside].mean() - right[inside].mean()) * inside.mean()
    sure = scores >= 0.65
    return error, table, (right[sure].mean(), scores[sure].mean(), sure.mean()) if sure.any() else (0.0, 0.0, 0.0)


def main() -> None:
    lingua, tatoeba = read("lingua_sentences"), read("tatoeba")
    sets = {"lingua": lingua, "tatoeba": tatoeba, "lingua x 4": joined(lingua, 4, 40),
            "lingua x 16": joined(lingua, 16, 40), "tatoeba x 8": joined(tatoeba, 8, 40)}
    told = {}
    print(f"{len(CLAIMED)} languages claimed\n\n| set | detector | languages | macro-accuracy | of the claimed | "
          "texts/s | ECE | precision from 0.65 | mean score there | kept |\n|---|---|---|---|---|---|---|---|---|---|")
    for name, rows in sets.items():
        texts, languages = [text for _, text in rows], {language for language, _ in rows}
        for detector, detect in detectors().items():
            detect(texts[:50])
            began = time.process_time()
            codes, scores = detect(texts)
            seconds = time.process_time() - began
            error, table, (precision, mean, share) = reliability(rows, codes, scores)
            told[name, detector] = codes, table
            calibration = (f"{error:.4f} | {precision:.4f} | {mean:.4f} | {share:.3f}" if detector != "resiliparse"
                           else "- | - | - | -")
            print(f"| {name} | {detector} | {len(languages)} | {macro(rows, codes, languages):.4f} | "
                  f"{macro(rows, codes, CLAIMED):.4f} ({len(languages & CLAIMED)}) | {len(rows) / seconds:,.0f} | "
                  f"{calibration} |", flush=True)
    for name in sets:
        print(f"\nReliability, {name}:\n\n| score from | texts | mean score | precision |\n|---|---|---|---|")
        for begin, texts, mean, precision in told[name, "gristmill"][1]:
            print(f"| {begin:.1f} | {texts} | {mean:.3f} | {precision:.3f} |")
    codes = told["lingua", "gristmill"][0]
    right = collections.defaultdict(list)
    for (language, _), found in zip(lingua, codes, strict=True):
        right[language].append(language == found)
    print("\nLeast accurate:", ", ".join(f"{language} {np.mean(hits):.3f}" for language, hits in
                                       sorted(right.items(), key=lambda entry: np.mean(entry[1]))[:12]))
    wrong = collections.Counter((language, found) for (language, _), found in zip(lingua, codes, strict=True)
                                if language != found)
    print("Most confused:", ", ".join(f"{a} as {b} {n}" for (a, b), n in wrong.most_common(12)))

    # Pages of two languages: eight sentences of one, then `other` of another.
    chance, by = random.Random(1), collections.defaultdict(list)
    for language, text in lingua:
        by[language].append(text)
    known = sorted(by)
    print("\n| sentences in another language, of 8 | pages | mean fraction | second language right | any other |\n"
          "|---|---|---|---|---|")
    for other in (0, 1, 2, 3):
        pages = []
        for _ in range(1000):
            one, two = chance.sample(known, 2)
            pages.append((two, "\n".join(chance.sample(by[one], 8 - other) + chance.sample(by[two], other))))
        found = identify(pa.array([text for _, text in pages], pa.large_string()), np.ones(1000, bool), Language())
        second = found["second_language"].to_pylist()
        print(f"| {other} | 1000 | {np.mean(found['other_language_fraction'].to_numpy()):.3f} | "
              f"{np.mean([two == s for (two, _), s in zip(pages, second, strict=True)]):.3f} | "
              f"{np.mean([s is not None for s in second]):.3f} |")


if __name__ == "__main__":
    main()
