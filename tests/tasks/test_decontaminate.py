import gzip
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decontaminate import Decontaminate, benchmark_index, clean, resources
from tasks.decontaminate.index import item_texts, overlaps
from tasks.decontaminate.words import count_words, folding, text_ngrams, utf8
from tasks.errors import UserError
from tasks.schema import CLEAN, DOCUMENTS, FATES, all_rows, doc_id, id_array, id_bytes
from tasks.spans import lists

LONG = "A farmer walks seven miles to the market every week and carries twelve eggs, nine apples and one small goat."
SHORT = "Which planet of our system has the longest day?"     # nine words
ROWS = [
    {"id": "q/0", "query": LONG, "choices": ["yes", "no"], "gold": 0},
    {"id": "q/1", "query": f"Question: {SHORT}\nAnswer:", "choices": ["Venus", "Mars"], "gold": 0},
    {"query": "Too short to count", "choices": ["one", "two"], "gold": 1},
]
FILLER = "The river runs quietly past the old mill, and nobody remembers who built the bridge over it. " * 3


def benchmark(folder, rows=ROWS, name="quiz.jsonl.gz"):
    path = folder / name
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return str(path)


def shard(texts):
    n = len(texts)
    empty = {name: pa.nulls(n, DOCUMENTS.field(name).type)
             for name in ("url", "domain", "snapshot", "source", "warc_file")}
    ids = id_array([doc_id("x", i) for i in range(n)])
    return pa.table(empty | {"doc_id": ids, "text": pa.array(texts, pa.string()),
                             "warc_offset": pa.array(range(n), pa.int64())})


def no_spans(documents):
    return all_rows(documents).append_column("spans", lists([[]] * len(documents)))


def run(texts, **options):
    documents = shard(texts)
    result = clean(documents, no_spans(documents), all_rows(documents), Decontaminate(**options))
    assert result.table.schema.equals(CLEAN) and result.fates.schema.equals(FATES)
    assert len(result.table) + len(result.fates) == len(texts)
    return result


def kept(texts, **options):
    return run(texts, **options).table["row"].to_pylist()


def test_an_item_is_found_verbatim_and_with_case_punctuation_and_accents_changed(tmp_path):
    changed = LONG.upper().replace(" ", "\n\t").replace(",", " --").replace("A", "Á")
    texts = [FILLER, FILLER + LONG + FILLER, FILLER + changed, LONG.replace("week", "day"), "",
    LONG.replace("small ", "")]
    result = run(texts, benchmarks=[benchmark(tmp_path)])
    assert result.table["row"].to_pylist() == [0, 3, 4]
    fates = result.fates
    assert id_bytes(fates["doc_id"]).to_pylist() == [doc_id("x", i) for i in (1, 2, 5)]
    assert fates["rule"].to_pylist() == ["ngram_overlap"] * 3
    assert fates["detail"].to_pylist() == ["quiz:q/0"] * 3
    total = fates["value"][0].as_py()       # the 20 words, without the answer: 8 n-grams, and one with it
    assert total == 8 and fates["similarity"][0].as_py() == pytest.approx(8 / 9)
    assert fates["value"].to_pylist() == [8, 8, 6] and set(fates["threshold"].to_pylist()) == {1}


def test_short_items_match_whole_and_the_shortest_never(tmp_path):
    files = [benchmark(tmp_path)]
    texts = ["He asked which planet of our system has the longest day. Venus!", "Too short to count, two.",
             "which planet of our own system has the longest day"]
    result = run(texts, benchmarks=files)
    assert result.table["row"].to_pylist() == [1, 2]
    assert result.fates["detail"].to_pylist() == ["quiz:q/1"]
    assert kept(texts, benchmarks=files, min_words=11) == [0, 1, 2]


def test_thresholds(tmp_path):
    files = [benchmark(tmp_path)]
    part = " ".join(LONG.split()[:15])      # 3 of 9 n-grams
    assert kept([part], benchmarks=files) == []
    assert kept([part], benchmarks=files, min_ngrams=3) == []
    assert kept([part], benchmarks=files, min_ngrams=4) == [0]
    assert kept([part], benchmarks=files, min_fraction=0.33) == []
    assert kept([part], benchmarks=files, min_fraction=0.34) == [0]
    assert kept([f"so: {SHORT}"], benchmarks=files, min_ngrams=5) == []     # it has only one


def test_templates_that_many_items_share_do_not_count(tmp_path):
    template = "Read the following passage with care and then choose the best of the four answers given below. "
    files = [benchmark(tmp_path, [{"query": f"{template}{word} {word}"} for word in "abcdefghijkl"])]
    assert kept([template], benchmarks=files) == [0]
    assert kept([template], benchmarks=files, max_items=12) == []


def test_no_benchmarks_keep_everything():
    documents = shard([LONG, FILLER])
    part = all_rows(documents).slice(1)
    result = clean(documents, no_spans(documents), part, Decontaminate())
    assert result.table.select(["doc_id", "row"]).equals(part) and len(result.fates) == 0


def test_kept_rows_keep_their_place(tmp_path):
    documents = shard([LONG, FILLER, LONG, FILLER])
    part = all_rows(documents).slice(1)
    result = clean(documents, no_spans(documents), part, Decontaminate(benchmarks=[benchmark(tmp_path)]))
    assert result.table["row"].to_pylist() == [1, 3]
    assert result.fates["warc_offset"].to_pylist() == [2]


def test_texts_of_known_benchmark_forms():
    assert item_texts({"context": "c", "continuation": "d"}) == ["c", "c d"]
    chosen = {"query": "Question: q\nAnswer:", "choices": ["x", "y"], "gold": 1}
    assert item_texts(chosen) == ["  q\n ", "  q\n  y", "x", "y"]
    labelled = {"question": "q", "choices": [{"text": "x"}, {"text": "y"}], "answer": 0}
    assert item_texts(labelled) == ["q", "q x", "x", "y"]
    assert item_texts({"other": 1}) == []


def test_files_are_named_by_path_and_glob_and_their_faults_by_name(tmp_path):
    path = benchmark(tmp_path)
    plain = benchmark(tmp_path, ROWS[:1], "plain.jsonl")
    assert resources(Decontaminate(benchmarks=[f"{tmp_path}/*.jsonl*", path])) == sorted([path, plain])
    assert resources(Decontaminate(benchmarks=[f"file://{tmp_path}/*.jsonl"])) == [f"file://{plain}"]
    with pytest.raises(UserError, match="no benchmark file matches .*nothing"):
        resources(Decontaminate(benchmarks=[f"{tmp_path}/nothing*"]))
    with pytest.raises(UserError, match="cannot read .*absent.jsonl"):
        benchmark_index(Decontaminate(benchmarks=[f"{tmp_path}/absent.jsonl"]))
    (tmp_path / "bad.jsonl").write_text("{broken")
    with pytest.raises(UserError, match="bad.jsonl .JSONDecodeError"):
        benchmark_index(Decontaminate(benchmarks=[f"{tmp_path}/bad.jsonl"]))
    with pytest.raises(UserError, match="has no field of"):
        benchmark_index(Decontaminate(benchmarks=[benchmark(tmp_path, [{"unknown": "x"}], "odd.jsonl")]))


def test_a_line_separator_inside_a_string_does_not_end_a_row(tmp_path):
    assert kept([LONG], benchmarks=[benchmark(tmp_path, [{"query": "line\u2028 " + LONG}])]) == []


@pytest.mark.parametrize("text, words", [
    ("", 0), ("...", 0), ("one", 1), ("don't  well-known", 3), ("don’t", 1), ("ÉCOLE école", 2), ("中文字 かな", 5),
    ("한국어 문장", 2), ("भाषा में", 2), ("x86_64 3.14", 4), ("🙂 a🙂b", 2), ("مرحبا بالعالم", 2), ("𠀀𠀁", 2)])
def test_words(text, words):
    assert count_words(*utf8(pa.array([text])), folding())[0] == words


def grams(text, length=3):
    return set(text_ngrams(*utf8(pa.array([text], pa.string())), folding(), np.array([length]), length)[0].tolist())


@pytest.mark.parametrize("one, other", [
    ("Don’t stop, NOW!", "dont stop now"), ("École cafe\u0301 ﬁn", "ecole café fin"[:11] + "fn"),
    ("ＡＢ cd ef", "ab CD eF"),
    ("中文字", "中 文 字"), ("a-b_c", "a b c")])
def test_folding_makes_equal(one, other):
    assert grams(one) == grams(other) and len(grams(one)) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab ", max_size=60), max_size=5),
       st.lists(st.text("ab ", min_size=1, max_size=50), min_size=1, max_size=4))
def test_overlap_is_what_sets_of_word_tuples_say(tmp_path_factory, documents, items):
    """Against a plain definition, on texts of few words so that n-grams meet often."""
    length, least = 4, 2

    def tuples(text, n):
        words = text.split()
        return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}

    wanted = []
    for item in items:
        n = len(item.split())
        wanted.append(tuples(item, length) if n >= length else tuples(item, n) if n >= least else set())
    if not any(item.strip() for item in items):
        return
    path = benchmark(tmp_path_factory.mktemp("items"), [{"text": item} for item in items])
    index = benchmark_index(Decontaminate(benchmarks=[path], ngram=length, min_words=least))
    found = overlaps(documents, index)
    for place, text in enumerate(documents):
        have = tuples(text, 4) | tuples(text, 3) | tuples(text, 2)
        most = max(len(have & grams) for grams in wanted)
        assert (found[place].matched if place in found else 0) == most
