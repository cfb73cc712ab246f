"""Which pages each rule drops, ours beside datatrove's filters and DCLM's, on the same texts.

    GRISTMILL_SHARED=... python tests/benchmarks/rules_agreement.py ours /tmp/ours.jsonl
    PEER/bin/python tests/benchmarks/rules_agreement.py peer /tmp/ours.jsonl /tmp/peer.jsonl DCLM_CHECKOUT
    python tests/benchmarks/rules_agreement.py compare /tmp/ours.jsonl /tmp/peer.jsonl [RULE]

PEER has datatrove[processing]==0.10.1, uniseg and unidecode; DCLM_CHECKOUT is https://github.com/mlfoundations/dclm.
The texts are the shared web pages that are English to us, as resiliparse finds their main content; no line is cut. Each
rule is asked alone, with the bounds of its own file. With RULE, the pages on which the two disagree are listed.
"""

import glob
import json
import os
import sys
import types
from collections import Counter
from pathlib import Path

GRAMS = {2: 0.2, 3: 0.18, 4: 0.16, 5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
# Rules of ours and the names under which the peers' outcomes are asked for; None where a peer has no such rule.
PAIRS = {
    "gopher_words": ("words", "words"), "gopher_word_length": ("word_length", "word_length"),
    "gopher_hashes": ("hashes", None), "gopher_ellipses": ("ellipses", None), "rpv2_symbols": (None, "symbols"),
    "gopher_bullet_lines": ("bullets", "bullets"), "gopher_ellipsis_lines": ("ellipsis_lines", "ellipsis_lines"),
    "gopher_letters": ("letters", "letters"), "fineweb2_letters": ("letters", None),
    "gopher_stop_words": ("stop_words", "stop_words"),
    "gopher_duplicate_lines": ("lines", "lines"), "gopher_duplicate_line_chars": ("line_chars", "line_chars"),
    "gopher_duplicate_paragraphs": ("paragraphs", "paragraphs"),
    "gopher_duplicate_paragraph_chars": ("paragraph_chars", "paragraph_chars"),
    **{f"gopher_top_{n}grams": (f"{n}grams", f"{n}grams") for n in (2, 3, 4)},
    **{f"gopher_duplicate_{n}grams": (f"{n}grams", None) for n in range(5, 11)},
    **{f"rpv2_repeated_{n}grams": (None, f"{n}grams") for n in range(5, 11)},
    "c4_sentences": ("c4_sentences", None), "c4_curly_brackets": ("curly", None), "c4_lorem_ipsum": ("lorem", None),
    "fineweb_line_punctuation": ("line_punctuation", None), "fineweb_short_lines": ("short_lines", None),
    "fineweb_duplicate_line_chars": ("fineweb_line_chars", None), "fineweb_newlines": ("newlines", None),
    "= gopher": ("gopher", None), "= fineweb": ("fineweb", None), "= dclm without lines and model": (None, "dclm"),
}


def ours(out: str) -> None:
    import pyarrow as pa
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    from tasks.annotate import Annotate, signals
    from tasks.filter import Filter, evaluate
    from tasks.filter.rules import RULE_TABLE
    from tasks.lines import Lines, cut_lines
    from tasks.schema import doc_id, id_array

    urls, texts = [], []
    for path in sorted(glob.glob(os.environ["GRISTMILL_SHARED"] + "/data/web/crawl_dev-*.warc.gz")):
        with open(path, "rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
                body = record.reader.read()
                text = extract_plain_text(bytes_to_str(body, detect_encoding(body)), main_content=True)
                if text.strip():
                    urls.append(record.headers.get("WARC-Target-URI"))
                    texts.append(text.encode("utf-8", "replace").decode())
    documents = pa.table({"doc_id": id_array([doc_id(url, i) for i, url in enumerate(urls)]), "text": texts})
    measured = signals(documents, cut_lines(documents, Lines(presets=[])), Annotate())
    english = [i for i, (language, score) in enumerate(zip(
        measured["language"].to_pylist(), measured["language_score"].to_pylist(), strict=True))
        if language == "en" and score >= 0.65]
    pages = measured.append_column("rights", pa.array([[]] * len(urls), pa.list_(pa.string()))).take(english)
    settings = Filter(presets=[], **{name: {"enabled": True, **rule.params} for name, rule in RULE_TABLE.items()})
    failed = evaluate(pages, settings).to_pylist()
    rows = pages.select([name for name in pages.column_names if name not in ("doc_id", "minhash")]).to_pylist()
    with open(out, "w", encoding="utf-8") as file:
        for i, broken, values in zip(english, failed, rows, strict=True):
            names = [one["rule"] for one in broken]
            file.write(json.dumps({"url": urls[i], "text": texts[i], "drops": names, "signals": values}) + "\n")
    print(f"{len(urls)} texts, {len(english)} English")


def datatrove_filters() -> dict:
    """A filter for each name; each is asked alone, and says (False, reason) or True."""
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    quality = dict.fromkeys(("min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length",
                             "max_symbol_word_ratio", "max_bullet_lines_ratio", "max_ellipsis_lines_ratio",
                             "max_non_alpha_words_ratio", "min_stop_words"))
    repetition = dict(dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None,
                      top_n_grams=(), dup_n_grams=())
    fineweb = dict(line_punct_thr=-1, short_line_thr=9, char_duplicates_ratio=9, new_line_ratio=9e9)
    c4 = dict(min_num_sentences=-1, filter_no_terminal_punct=False, filter_lorem_ipsum=False, filter_javascript=False,
              filter_curly_bracket=False, filter_policy=False, min_words_per_line=-1, max_word_length=-1)
    return {
        "words": GopherQualityFilter(**quality | dict(min_doc_words=50, max_doc_words=100000)),
        "word_length": GopherQualityFilter(**quality | dict(min_avg_word_length=3, max_avg_word_length=10)),
        "symbols": GopherQualityFilter(**quality | dict(max_symbol_word_ratio=0.1)),
        "bullets": GopherQualityFilter(**quality | dict(max_bullet_lines_ratio=0.9)),
        "ellipsis_lines": GopherQualityFilter(**quality | dict(max_ellipsis_lines_ratio=0.3)),
        "letters": GopherQualityFilter(**quality | dict(max_non_alpha_words_ratio=0.8)),
        "stop_words": GopherQualityFilter(**quality | dict(min_stop_words=2)),
        "lines": GopherRepetitionFilter(**repetition | dict(dup_line_frac=0.3)),
        "line_chars": GopherRepetitionFilter(**repetition | dict(dup_line_char_frac=0.2)),
        "paragraphs": GopherRepetitionFilter(**repetition | dict(dup_para_frac=0.3)),
        "paragraph_chars": GopherRepetitionFilter(**repetition | dict(dup_para_char_frac=0.2)),
        **{f"{n}grams": GopherRepetitionFilter(
            **repetition | {"top_n_grams" if n < 5 else "dup_n_grams": ((n, bound),)}) for n, bound in GRAMS.items()},
        "c4_sentences": C4QualityFilter(filter_lorem_ipsum=False, filter_curly_bracket=False),
        "curly": C4QualityFilter(**c4 | dict(filter_curly_bracket=True)),
        "lorem": C4QualityFilter(**c4 | dict(filter_lorem_ipsum=True)),
        "line_punctuation": FineWebQualityFilter(**fineweb | dict(line_punct_thr=0.12)),
        "short_lines": FineWebQualityFilter(**fineweb | dict(short_line_thr=0.67)),
        "fineweb_line_chars": FineWebQualityFilter(**fineweb | dict(char_duplicates_ratio=0.01)),
        "newlines": FineWebQualityFilter(**fineweb | dict(new_line_ratio=0.3)),
        "gopher": [GopherRepetitionFilter(), GopherQualityFilter()],
        "fineweb": [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
                    FineWebQualityFilter()],
    }


def dclm_filters(checkout: str) -> dict:
    for name, folder in (("baselines", ""), ("baselines.mappers", "mappers"), ("core", "core"),
                         ("baselines.mappers.filters", "mappers/filters")):     # without what its packages import
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [f"{checkout}/baselines/{folder}"]
    sys.modules["transformers"] = types.SimpleNamespace(AutoTokenizer=None)
    from baselines.mappers.filters import content_filters as f

    def repeats(granularity, bound, **more):
        return lambda page: f.repetition_filter(page, granularity, bound, **more)

    rules = {
        "words": lambda p: f.page_length_filter(p, "word", 50, 100000, ignore_punctuation=True),
        "word_length": lambda p: f.word_length_filter(p, 3, 10), "symbols": lambda p: f.symbol_ratio_filter(p, 0.1),
        "bullets": lambda p: f.bullet_count_filter(p, 0.9), "ellipsis_lines": lambda p: f.ellipsis_count_filter(p, 0.3),
        "letters": lambda p: f.alphabetic_word_ratio_filter(p, 0.2),
        "stop_words": lambda p: f.stop_word_filter(p, False, 2),
        "lines": repeats("line", 0.3, count_characters=False), "line_chars": repeats("line", 0.2),
        "paragraphs": repeats("paragraph", 0.3, count_characters=False), "paragraph_chars": repeats("paragraph", 0.2),
        **{f"{n}grams": repeats(n, bound) for n, bound in GRAMS.items()}}
    return rules | {"dclm": list(rules.values())}


def peer(source: str, out: str, checkout: str) -> None:
    from functools import lru_cache

    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        c4_filters,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lru_cache(4)(module.split_into_words)
    c4_filters.split_into_sentences = lru_cache(4096)(c4_filters.split_into_sentences)
    theirs, dclm = datatrove_filters(), dclm_filters(checkout)
    content = __import__("baselines.mappers.filters.content_filters", fromlist=["CONTENT"])
    content.split_words = lru_cache(4)(content.split_words)

    def drops(one, text: str) -> str | None:
        for filter_ in one if isinstance(one, list) else [one]:
            kept = filter_.filter(Document(text=text, id="")) if hasattr(filter_, "filter") else filter_(
                {content.CONTENT: text}) != []
            if kept is not True:
                return kept[1] if isinstance(kept, tuple) else "dropped"
        return None

    with open(source, encoding="utf-8") as file, open(out, "w", encoding="utf-8") as written:
        for line in file:
            text = json.loads(line)["text"]
            said = {}
            for kind, filters in (("datatrove", theirs), ("dclm", dclm)):
                for name, one in filters.items():
                    try:
                        said[f"{kind}.{name}"] = drops(one, text)
                    except ZeroDivisionError:
                        said[f"{kind}.{name}"] = "error"
            reason = said.pop("datatrove.symbols")
            said |= {"datatrove.hashes": reason == "gopher_too_many_hashes" or None,
                     "datatrove.ellipses": reason == "gopher_too_many_ellipsis" or None}
            written.write(json.dumps(said) + "\n")


def compare(source: str, peers: str, rule: str | None = None) -> None:
    from tasks.filter import Filter, enabled_rules

    chosen = {"= gopher": ["gopher"], "= fineweb": ["gopher", "c4", "fineweb"]}
    sets = {name: {r.name for r in enabled_rules(Filter(presets=presets))} - {"language", "language_score", "consent"}
            for name, presets in chosen.items()}
    sets["= dclm without lines and model"] = {r.name for r in enabled_rules(Filter(presets=["dclm"]))} - {
        "language", "language_score", "consent", "refinedweb_removed_words", "dclm_quality"}
    with open(source, encoding="utf-8") as a, open(peers, encoding="utf-8") as b:
        rows = [(json.loads(x), json.loads(y)) for x, y in zip(a, b, strict=True)]
    print(f"{len(rows)} pages\n\n| rule | beside | both drop | only ours | only theirs | agree |\n"
          "|---|---|---:|---:|---:|---:|")
    for name, names in PAIRS.items():
        for kind, other in zip(("datatrove", "dclm"), names, strict=True):
            if other is None or rule not in (None, name):
                continue
            counts = Counter()
            for mine, said in rows:
                us = bool(sets[name] & set(mine["drops"])) if name in sets else name in mine["drops"]
                them = said[f"{kind}.{other}"] is not None
                counts[us, them] += 1
                if rule and us != them:
                    print(json.dumps({"ours": us, kind: said[f"{kind}.{other}"], "url": mine["url"],
                                      "drops": mine["drops"] if name in sets else [], **{
                                          key: value for key, value in mine["signals"].items() if key in (
                                              "n_words", "n_pieces", "n_lines", "mean_word_length")}}))
            print(f"| {name} | {kind} | {counts[True, True]} | {counts[True, False]} | {counts[False, True]} | "
                  f"{(counts[True, True] + counts[False, False]) / len(rows):.2%} |")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    {"ours": ours, "peer": peer, "compare": compare}[sys.argv[1]](*sys.argv[2:])
