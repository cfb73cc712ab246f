"""Trains the classifier of main content (tasks/extract/main_content.bin), or tells by cross-validation how good it is.

    GRISTMILL_SHARED=... python tests/benchmarks/train_main_content.py cv|train

Needs catboost, which is no dependency of the project. Learns from data/web: pages with a human main text (WCXB,
https://github.com/Murrough-Foley/web-content-extraction-benchmark, CC-BY-4.0), whose words are aligned with the page's,
so that each block has the share of its words that are content; and the blocks that hold a passage that must or must
not be there (trafilatura's evaluation, Apache-2.0). Pages count alike, blocks by their words. What is
kept of the pages: weights of hashed class names and words that several sites share, and the trees.

`cv` leaves out two tenths of the domains at a time, so that nothing of a site is learnt that is tested; everything
learnt, the tables too, comes from the other eight. Deterministic: fixed seeds, one order, one thread.
"""

import collections
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tempfile
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from catboost import CatBoost, Pool
from numba import njit

import tasks.extract as extraction
from tasks.extract import Extract, main_content, tags
from tasks.extract.blocks import N_AT, N_FIRST, N_LAST, Parsed, tokenize
from tasks.extract.features import CONTEXT, NAMES, TAG_CLASS, choose, context, features, score
from tasks.extract.html import words_of
from tasks.extract.text import END, NODE, START, WORDS
from tasks.ingest import Ingest, plan
from tasks.storage import Root

GROUPS, FOLDS = 10, 5
SNIPPET_WEIGHT = 0.15        # of a page: what a passage that must or must not be there counts
TREES, DEPTH, TREES2, DEPTH2 = 120, 6, 80, 5
PARAMETERS = {"loss_function": "CrossEntropy", "learning_rate": 0.15, "l2_leaf_reg": 8, "border_count": 48, "rsm": 0.4,
              "bootstrap_type": "Bernoulli", "subsample": 0.7, "random_seed": 7, "thread_count": 1, "verbose": False,
              "allow_writing_files": False, "boosting_type": "Plain", "score_function": "L2"}
_WORD = re.compile(r"\w+")
_ASCII_WORD = re.compile(rb"[A-Za-z0-9\x80-\xff]+")


class Page:
    """A labelled page: `words` and `content` are the numbers of words of each block and of those that are content."""

    def __init__(self, html: bytes, row: dict[str, Any]):
        self.html, self.row = html, row
        host = (urllib.parse.urlsplit(row["url"]).hostname or "").split(".")
        second = len(host) > 2 and len(host[-1]) == 2 and host[-2] in ("co", "com", "org", "net", "gov", "ac", "edu")
        self.domain = ".".join(host[-3 if second else -2:])
        self.group = int(hashlib.sha1(self.domain.encode()).hexdigest(), 16) % GROUPS
        self.page = tokenize(html)
        data = self.page.text.tobytes()
        self.texts = [data[block[START]:block[END]].decode("utf-8", "replace") for block in self.page.blocks]
        n = len(self.texts)
        self.gold_words, self.wanted, self.unwanted = 0, [], []
        if row["gold_kind"] == "full":
            self.words, self.content, self.gold_words = _label(self.texts, row["gold_text"])
            self.weight = self.words / max(self.gold_words, 30, 0.3 * self.words.sum())
        else:
            self.words, self.content, self.weight = np.zeros(n), np.zeros(n), np.zeros(n)
            self.wanted = [[b for b, text in enumerate(self.texts) if s in text] for s in row["with"]]
            self.unwanted = [[b for b, text in enumerate(self.texts) if s in text] for s in row["without"]]
            for b in {b for found in self.unwanted for b in found}:
                self.words[b], self.weight[b] = self.page.blocks[b, WORDS], SNIPPET_WEIGHT
            for found in self.wanted:  # one place is enough
                for b in found if len(found) == 1 else []:
                    self.words[b] = self.content[b] = self.page.blocks[b, WORDS]
                    self.weight[b] = SNIPPET_WEIGHT
        self.share = self.content / np.maximum(self.words, 1)
        self.names = _class_names(html, self.page)


@njit
def _align(page, gold):
    """Which words of `page` are aligned with those of `gold`: the best order-keeping alignment, runs preferred."""
    n, m = len(page), len(gold)
    back = np.zeros((n + 1, m + 1), np.int8)
    above, above_match = np.zeros(m + 1, np.float32), np.full(m + 1, -1e9, np.float32)
    row, row_match = np.zeros(m + 1, np.float32), np.full(m + 1, -1e9, np.float32)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            run = 0
            row_match[j] = -1e9
            if page[i - 1] == gold[j - 1]:
                row_match[j] = above[j - 1] + 0.3
                if above_match[j - 1] + 1 > row_match[j]:
                    row_match[j], run = above_match[j - 1] + 1, 4
            best, way = above[j], 1
            if row[j - 1] > best:
                best, way = row[j - 1], 2
            if row_match[j] > best:
                best, way = row_match[j], 3
            row[j], back[i, j] = best, way | run
        above[:], above_match[:] = row, row_match
    matched, forced, i, j = np.zeros(n, np.bool_), False, n, m
    while i > 0 and j > 0:
        way = back[i, j]
        if forced or way & 3 == 3:
            matched[i - 1], forced = True, way & 4 != 0
            i, j = i - 1, j - 1
        elif way & 3 == 1:
            i -= 1
        else:
            j -= 1
    return matched


def _label(texts: list[str], gold: str) -> tuple[np.ndarray, np.ndarray, int]:
    words, owner, ids = [], [], {}
    for b, text in enumerate(texts):
        found = _WORD.findall(text.lower())
        words += found
        owner += [b] * len(found)
    page = np.array([ids.setdefault(w, len(ids)) for w in words], np.int32)
    wanted = np.array([ids.setdefault(w, len(ids)) for w in _WORD.findall(gold.lower())], np.int32)
    kept = page[:400_000_000 // max(1, len(wanted))]
    matched = np.zeros(len(page))
    if len(kept) and len(wanted):
        matched[:len(kept)] = _align(kept, wanted)
    owner = np.array(owner, np.int64)
    return (np.bincount(owner, minlength=len(texts)).astype(float),
            np.bincount(owner, weights=matched, minlength=len(texts)), len(wanted))


_CLASS_OR_ID = re.compile(rb"""[\s"'/](?:class|id)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.IGNORECASE)


def _class_names(html: bytes, page: Parsed) -> list[tuple[int, int]]:
    """(element, hash) of all names in classes and ids."""
    hashes, found = np.zeros(64, np.uint64), set()
    for node in range(1, len(page.nodes)):
        at = int(page.nodes[node, N_AT])
        tag = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>?""").match(html, at)
        for match in _CLASS_OR_ID.finditer(tag.group() if tag else b""):
            value = np.frombuffer(match[1] or match[2] or match[3] or b"", np.uint8)
            found |= {(node, int(h)) for h in hashes[:words_of(value, 0, len(value), hashes)]}
    return sorted(found)


def load(shared: Path) -> list[Page]:
    """The labelled pages in the order of the archives, as the extract stage would read them."""
    with gzip.open(shared / "data/web/webpages_dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = {(row["warc_file"], row["warc_offset"]): row for row in map(json.loads, lines)}
    pages, settings = [], Extract(engine="resiliparse")
    seen: list[str] = []
    extraction.main_text = lambda html, **_: seen.append(html) or extraction.Page("", "-")
    with tempfile.TemporaryDirectory() as home:
        for split in plan([str(shared / "data/web/*.warc.gz")], Ingest(), Root(home)).splits:
            for record in extraction._records(split, settings):
                row = rows.get((Path(split.path).name, record.offset), {})
                if row.get("gold_kind") == "full" and row.get("gold_text") or row.get("gold_kind") == "snippets":
                    seen.clear()
                    try:
                        extraction._document(record, settings)
                    except extraction._Drop:
                        continue
                    if seen:
                        pages.append(Page(seen[0].encode("utf-8", "replace"), row))
    return pages


def _class_evidence(pages: list[Page]) -> dict[tuple[int, int], list[float]]:
    """By (group of domains, hash): the share of content under the name, summed over domains, and how many domains."""
    by_domain: dict[tuple, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for page in pages:
        nodes = page.page.nodes
        words, content = (np.concatenate([[0.0], np.cumsum(x)]) for x in (page.words, page.content))
        own = [np.bincount(page.page.blocks[:, NODE], weights=x, minlength=len(nodes))
               for x in (page.words, page.content)]
        sums: dict[int, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
        for node, h in page.names:
            first, last = nodes[node, N_FIRST], nodes[node, N_LAST]
            held = (words[last] - words[first], content[last] - content[first]) if first >= 0 else (
                own[0][node], own[1][node])
            sums[h][0] += held[0]
            sums[h][1] += held[1]
        for h, (held, wanted) in sums.items():
            if held:
                entry = by_domain[page.group, page.domain, h]
                entry[0] += wanted / held
                entry[1] += 1
    return _by_group(by_domain)


def _word_evidence(pages: list[Page]) -> dict[tuple[int, int], list[float]]:
    """The same of words in short blocks."""
    by_domain: dict[tuple, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for page in pages:
        for b, text in enumerate(page.texts):
            if page.words[b] and page.page.blocks[b, WORDS] <= 12:
                for word in set(_ASCII_WORD.findall(text.encode().lower())):
                    if len(word) <= 30 and not word.isdigit():
                        entry = by_domain[page.group, page.domain, tags.fnv(word)]
                        entry[0] += page.share[b]
                        entry[1] += 1
    return _by_group(by_domain)


def _by_group(by_domain: dict[tuple, list[float]]) -> dict[tuple[int, int], list[float]]:
    groups: dict[tuple[int, int], list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for (group, _, h), (shares, pages) in by_domain.items():
        groups[group, h][0] += shares / pages
        groups[group, h][1] += 1
    return groups


def _log_odds(evidence: dict, use: set[int], prior: float, least: int) -> dict[int, float]:
    """Log odds of content for each hash that `least` domains have, less those of `prior`, drawn to 0 by two more."""
    sums: dict[int, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for (group, h), (shares, domains) in evidence.items():
        if group in use:
            sums[h][0] += shares
            sums[h][1] += domains
    odds = {}
    for h, (shares, domains) in sums.items():
        if domains >= least:
            share = (shares + 2 * prior) / (domains + 2)
            odds[h] = float(np.log(share / (1 - share)) - np.log(prior / (1 - prior)))
    return odds


def tables(classes: dict, words: dict, use: set[int]) -> dict[str, np.ndarray]:
    """The tables that the domains of the groups `use` teach."""
    weights = {h: round(max(-5, min(5, w)) * 800) for h, w in _log_odds(classes, use, 0.5, 3).items() if abs(w) > 0.3}
    telling = {h: round(min(-w, 5) * 100) for h, w in _log_odds(words, use, 0.35, 6).items() if w < -0.5}
    class_keys, class_values = tags.class_table(weights, 1 << 15)
    word_keys, word_values = tags.hashed(telling, 1 << 13)
    return {"class_keys": class_keys, "class_values": class_values, "word_keys": word_keys, "word_values": word_values}


def _rows(page: Page, learnt: dict[str, np.ndarray]) -> np.ndarray:
    empty = np.zeros(0)
    model = main_content.Model(**learnt, **{n: empty for n in main_content.Model._fields if n not in learnt})
    parsed = main_content.parse(page.html, model)
    rows = np.zeros((len(parsed.blocks), len(NAMES) + len(CONTEXT)), np.float32)
    features(parsed.text, parsed.blocks, parsed.nodes, parsed.weights, TAG_CLASS, rows)
    return rows


def fit(rows: list[np.ndarray], pages: list[Page], columns: int, trees: int, depth: int) -> dict[str, np.ndarray]:
    """Boosted oblivious trees as `tasks.extract.features.score` takes them."""
    x, share, weight = (np.concatenate(parts) for parts in (
        rows, [p.share for p in pages], [p.weight for p in pages]))
    used = weight > 0
    pool = Pool(x[used, :columns], share[used], weight=weight[used] / weight[used].mean())
    booster = CatBoost({**PARAMETERS, "iterations": trees, "depth": depth})
    booster.fit(pool)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        booster.save_model(file.name, format="json")
        model = json.load(open(file.name))
    scale, bias = model["scale_and_bias"]
    feature, border = np.zeros((trees, depth), np.int16), np.full((trees, depth), np.inf, np.float32)
    leaf = np.zeros((trees, 1 << depth))
    for t, tree in enumerate(model["oblivious_trees"]):
        for d, split in enumerate(tree["splits"]):
            feature[t, d], border[t, d] = split["float_feature_index"], split["border"]
        leaf[t, :len(tree["leaf_values"])] = scale * np.array(tree["leaf_values"])
    leaf[0] += bias[0]
    return {"feature": feature, "border": border, "leaf": leaf}


def apply(rows: np.ndarray, trees: dict[str, np.ndarray]) -> np.ndarray:
    p = np.zeros(len(rows))
    score(rows, trees["feature"], trees["border"], trees["leaf"], p)
    return p


def learn(pages: list[Page], rows: list[np.ndarray]) -> tuple[dict, dict]:
    """Both sets of trees from `pages`; the second learns from what the first says of pages it was not fitted to."""
    first = fit(rows, pages, len(NAMES), TREES, DEPTH)
    for held in range(3):
        inside = [i for i, p in enumerate(pages) if p.group % 3 != held]
        part = fit([rows[i] for i in inside], [pages[i] for i in inside], len(NAMES), TREES, DEPTH)
        for i, page in enumerate(pages):
            if page.group % 3 == held and len(rows[i]):
                context(apply(rows[i], part), page.page.blocks, page.page.nodes, len(NAMES), rows[i])
    return first, fit(rows, pages, len(NAMES) + len(CONTEXT), TREES2, DEPTH2)


def main() -> None:
    pages = load(Path(os.environ["GRISTMILL_SHARED"]))
    classes, words, everyone = _class_evidence(pages), _word_evidence(pages), set(range(GROUPS))
    print(len(pages), "pages", len({p.domain for p in pages}), "domains", flush=True)

    def without(group: int, use: set[int]) -> list[int]:
        learnt = tables(classes, words, use - {group})
        for i, page in enumerate(pages):
            if page.group == group:
                rows[i] = _rows(page, learnt)

    rows: dict[int, np.ndarray] = {}
    if sys.argv[1] == "train":
        for group in sorted(everyone):
            without(group, everyone)
        first, second = learn(pages, [rows[i] for i in range(len(pages))])
        save(tables(classes, words, everyone) | first | {f"{name}2": value for name, value in second.items()})
        return
    chosen: dict[int, np.ndarray] = {}
    for fold in range(FOLDS):
        tested = {group for group in everyone if group % FOLDS == fold}
        use = everyone - tested
        for group in sorted(use):
            without(group, use)
        inside = [i for i, p in enumerate(pages) if p.group in use]
        first, second = learn([pages[i] for i in inside], [rows[i] for i in inside])
        learnt = tables(classes, words, use)
        for i, page in enumerate(pages):
            if page.group in tested:
                x = _rows(page, learnt)
                context(apply(x, first), page.page.blocks, page.page.nodes, len(NAMES), x)
                taken = choose(apply(x, second), page.page.blocks, page.page.nodes, False)
                chosen[i] = np.flatnonzero(taken)
        report(pages, chosen)


def report(pages: list[Page], chosen: dict[int, np.ndarray]) -> None:
    """F1 of aligned words and of passages, over the pages in `chosen`. Aligned, a little below the bag of words' F1."""
    kinds, found, missed, leaked = collections.defaultdict(list), 0, 0, 0
    for i, blocks in chosen.items():
        page, taken = pages[i], set(blocks.tolist())
        if page.gold_words:
            hits = page.content[blocks].sum()
            f1 = 2 * hits / (page.words[blocks].sum() + page.gold_words)
            kinds["all"].append(f1)
            kinds[page.row["extra"]["page_type"]].append(f1)
        hits = sum(not taken.isdisjoint(places) for places in page.wanted)
        found, missed = found + hits, missed + len(page.wanted) - hits
        leaked += sum(not taken.isdisjoint(places) for places in page.unwanted)
    precision, recall = found / max(1, found + leaked), found / max(1, found + missed)
    print(json.dumps({"pages": len(chosen), "f1": {k: round(float(np.mean(v)), 4) for k, v in sorted(kinds.items())},
                      "snippets": [round(precision, 4), round(recall, 4),
                                   round(2 * precision * recall / max(1e-9, precision + recall), 4)]}), flush=True)


def save(arrays: dict[str, np.ndarray]) -> None:
    """A .npz whose bytes depend on the arrays alone: no times."""
    with zipfile.ZipFile(main_content.MODEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in main_content.Model._fields:
            data = io.BytesIO()
            np.lib.format.write_array(data, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), data.getvalue(),
                             zipfile.ZIP_DEFLATED, 9)


if __name__ == "__main__":
    main()
