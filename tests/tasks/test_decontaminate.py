"""The stage, its index and its settings; what a match is has tests of its own in test_decontaminate_search.py."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pytest

from tasks.decontaminate import Decontaminate, benchmark_index, clean, decontaminate, index_benchmarks, resources
from tasks.decontaminate.index import INDEX, from_table
from tasks.decontaminate.items import item
from tasks.errors import UserError
from tasks.schema import CLEAN, DOCUMENTS, FATES, all_rows, doc_id, id_array, id_bytes
from tasks.spans import Span, applied, lists, unlisted
from tasks.stage import Build, Unit, run_stage, store
from tasks.storage import Root

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


def spans_of(documents, spans=None):
    return all_rows(documents).append_column("spans", lists(spans or [[]] * len(documents)))


def run(texts, spans=None, **options):
    documents, settings = shard(texts), Decontaminate(**options)
    result = clean(documents, spans_of(documents, spans), all_rows(documents), index_benchmarks(settings), settings)
    assert result.table.schema.equals(CLEAN) and result.fates.schema.equals(FATES)
    assert len(result.table) + len(result.fates) == len(texts)
    return result


def kept(texts, **options):
    return run(texts, **options).table["row"].to_pylist()


def test_an_item_is_found_verbatim_changed_in_case_punctuation_and_accents_and_reworded(tmp_path):
    changed = LONG.upper().replace(" ", "\n\t").replace(",", " --").replace("A", "Á")
    reworded = LONG.replace("market", "harbour").replace("nine", "some")
    texts = [FILLER, FILLER + LONG + FILLER, FILLER + changed, FILLER + reworded, "", LONG.replace("small ", ""),
             FILLER + "A farmer walks seven miles to the village and sells apples and one small goat every week."]
    result = run(texts, benchmarks=[benchmark(tmp_path)])
    assert result.table["row"].to_pylist() == [0, 4, 6]
    fates = result.fates
    assert id_bytes(fates["doc_id"]).to_pylist() == [doc_id("x", i) for i in (1, 2, 3, 5)]
    assert fates["rule"].to_pylist() == ["ngram_overlap", "ngram_overlap", "item_similarity", "ngram_overlap"]
    assert fates["detail"].to_pylist() == ["quiz:q/0"] * 4
    assert fates["value"].to_pylist() == [8, 8, pytest.approx(18 / 20), 6]
    assert fates["threshold"].to_pylist() == [1, 1, 0.8, 1]
    assert fates["similarity"].to_pylist() == pytest.approx([1, 1, 18 / 20, 18 / 20])


def test_short_items(tmp_path):
    files = [benchmark(tmp_path)]
    texts = ["He asked which planet of our system has the longest day. Venus!", "Too short to count, two.",
             "which planet of our solar system has the longest day", "which planet of our system has the longest"]
    result = run(texts, benchmarks=files)
    assert result.table["row"].to_pylist() == [1]
    assert result.fates["detail"].to_pylist() == ["quiz:q/1"] * 3
    assert kept(texts, benchmarks=files, min_words=12) == [1, 2, 3], "with fewer words than that only whole"
    assert kept(texts, benchmarks=files, min_words=10, exact_words=10) == [1], "with its answer it has ten"
    assert kept(texts, benchmarks=files, min_words=12, exact_words=12) == [0, 1, 2, 3]
    assert kept(texts, benchmarks=files, exact_words=4) == [], "four words"
    assert kept(texts, benchmarks=files, similarity=1) == [1, 2, 3], "GPT-3's rule"


def test_a_short_question_is_found_alone_and_with_its_options(tmp_path):
    query = "Question: Where do millers keep flour?\nChoices:\nA. sack\nB. barn\nC. well\nAnswer:"
    files = [benchmark(tmp_path, [{"query": query, "choices": ["A", "B", "C"], "gold": 0}])]
    texts = ["So: where do millers keep flour?", query, "Where do millers keep flour? Sack, barn, well.",
             "where do all millers keep flour", "choices: a. sack b. barn c. well"]
    assert kept(texts, benchmarks=files) == [3, 4]


def test_thresholds(tmp_path):
    files = [benchmark(tmp_path)]
    part = " ".join(LONG.split()[:15])      # 3 of 8 n-grams, 15 of 20 words
    assert kept([part], benchmarks=files) == []
    assert kept([part], benchmarks=files, min_ngrams=3) == []
    assert kept([part], benchmarks=files, min_ngrams=4) == [0]
    assert kept([part], benchmarks=files, min_fraction=0.75) == []
    assert kept([part], benchmarks=files, min_fraction=0.76) == [0]
    assert kept([part], benchmarks=files, min_ngrams=4, similarity=0.75) == []
    assert kept([part], benchmarks=files, ngram=16) == [0]


def test_templates_that_many_items_share_do_not_count(tmp_path):
    template = "Read the following passage with care and then choose the best of the four answers given below. "
    files = [benchmark(tmp_path, [{"query": f"{template}{word} {word}"} for word in "abcdefghijkl"])]
    assert kept([template, template + "d d", template + "z z"], benchmarks=files) == [0, 2]
    assert kept([template], benchmarks=files, max_items=12) == []
    same = [benchmark(tmp_path, [{"query": LONG}] * 11, "same.jsonl")]
    assert kept([LONG], benchmarks=same) == [0] and kept([LONG], benchmarks=same, max_items=11) == []


def test_no_benchmarks_keep_everything():
    documents = shard([LONG, FILLER])
    part = all_rows(documents).slice(1)
    assert len(index_benchmarks(Decontaminate())) == 0
    result = clean(documents, spans_of(documents), part, INDEX.empty_table(), Decontaminate())
    assert result.table.select(["doc_id", "row"]).equals(part) and len(result.fates) == 0


def test_kept_rows_keep_their_place(tmp_path):
    documents = shard([LONG, FILLER, LONG, FILLER])
    settings = Decontaminate(benchmarks=[benchmark(tmp_path)])
    rows = all_rows(documents).slice(1)
    result = clean(documents, spans_of(documents), rows, index_benchmarks(settings), settings)
    assert result.table["row"].to_pylist() == [1, 3]
    assert result.fates["warc_offset"].to_pylist() == [2]


def test_tagged_documents_stay_and_name_their_items(tmp_path):
    both = f"{FILLER}{SHORT} {FILLER} {LONG.replace('goat', 'sheep')}"
    result = run([FILLER, both], benchmarks=[benchmark(tmp_path)], action="tag")
    assert result.table["row"].to_pylist() == [0, 1] and unlisted(result.table["spans"]) == [[], []]
    assert result.table["contamination"].to_pylist() == [None, [
        {"benchmark": "quiz", "item": "q/0", "matched": 19, "fraction": 19 / 20},
        {"benchmark": "quiz", "item": "q/1", "matched": 9, "fraction": 1.0}]]


def test_an_item_of_several_benchmarks_is_named_for_each(tmp_path):
    files = [benchmark(tmp_path), benchmark(tmp_path, ROWS[:1], "copy.jsonl")]
    (tags,) = run([LONG], benchmarks=files, action="tag").table["contamination"].to_pylist()
    assert [(tag["benchmark"], tag["item"]) for tag in tags] == [("copy", "q/0"), ("quiz", "q/0")]


def test_cutting_takes_the_passage_and_what_is_around_it(tmp_path):
    head, tail = "Before it stood this. " * 30, "After it came that. " * 30
    options = dict(benchmarks=[benchmark(tmp_path)], action="cut", margin=20, min_piece=100)
    result = run([head + LONG + " " + tail, FILLER], **options)
    assert len(result.fates) == 0
    (spans, none) = unlisted(result.table["spans"])
    assert none == [] and [(span.type, span.replacement) for span in spans] == [("benchmark", "")]
    text = applied(pa.array([head + LONG + " " + tail]), lists([spans]))[0].as_py()
    assert "farmer" not in text and "goat" not in text
    assert text.startswith("Before it stood") and text.endswith("came that. ")
    assert len(head + LONG + tail) - len(text) < len(LONG) + 2 * (20 + 10)
    assert result.table["contamination"].to_pylist()[0][0]["item"] == "q/0"
    wide = unlisted(run([head + LONG + " " + tail], **options | {"margin": 200}).table["spans"])[0][0]
    assert wide.length >= len(LONG) + 400
    assert len(run([LONG, head[:90] + LONG], **options).table) == 0, "nothing is left"


def test_a_text_cut_into_many_pieces_is_dropped(tmp_path):
    text = (LONG + " " + FILLER * 3) * 4
    options = dict(benchmarks=[benchmark(tmp_path)], action="cut", margin=0)
    assert len(unlisted(run([text], **options, max_pieces=4).table["spans"])[0]) == 4
    fates = run([text], **options, max_pieces=3).fates
    assert (fates["rule"][0].as_py(), fates["value"][0].as_py(), fates["threshold"][0].as_py()) == (
        "too_many_pieces", 4, 3)


def test_a_passage_that_cutting_makes_is_cut_too(tmp_path):
    """Cutting the short item joins two halves of the long one, which stood too far apart."""
    middle = LONG.index("every")
    text = f"{LONG[:middle]}{SHORT} {LONG[middle:]}"
    (spans,) = unlisted(run([FILLER + text + FILLER], benchmarks=[benchmark(tmp_path)], action="cut", margin=0,
                            min_piece=0).table["spans"])
    left = applied(pa.array([FILLER + text + FILLER]), lists([spans]))[0].as_py()
    assert "farmer" not in left and "planet" not in left and "goat" not in left and left.count("bridge") == 6


def test_spans_before_are_seen_and_kept(tmp_path):
    """An item with a cut line in it is found in the text as it will be read; other edits stay."""
    middle = LONG.index("every")
    text = f"{FILLER}{LONG[:middle]}Accept all of our lovely cookies now or else. {LONG[middle:]} {FILLER}"
    cut = Span("line_policy", text.index("Accept"), len("Accept all of our lovely cookies now or else. "), "")
    hidden = Span("email", 4, 5)
    files = [benchmark(tmp_path)]
    assert len(run([text], [[hidden, cut]], benchmarks=files).fates) == 1
    (spans,) = unlisted(run([text], [[hidden, cut]], benchmarks=files, action="cut", margin=0, min_piece=0)
                        .table["spans"])
    assert spans[0] == hidden and [span.type for span in spans[1:]] == ["benchmark"]
    assert text[spans[1].offset:].startswith(LONG[:9]) and spans[1].end >= text.index("goat")


def test_texts_of_known_benchmark_forms():
    def texts(row, fields=()):
        return item("b", 0, row, fields)[2:6]

    assert texts({"context": "c", "continuation": "d"}) == (("c",), "d", (), ("d",))
    chosen = {"query": "Question: q\nAnswer:", "choices": ["x", "y"], "gold": 1}
    assert texts(chosen) == (("q",), "y", ("x", "y"), ("x", "y"))
    labelled = {"question": "q", "choices": [{"text": "x"}, {"text": "y"}], "answer": 0}
    assert texts(labelled) == (("q",), "x", ("x", "y"), ("x", "y"))
    columns = {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}
    assert texts(columns)[2] == ("x", "y")
    assert texts({"query": "Passage: p\nQuestion: q\nA. x\nB. y\nAnswer:"})[0] == ("p", "q", "x", "y")
    pair = {"context_options": ["Ann as Ann", "Ann as Bea"], "continuation": "slept.", "gold": 0}
    assert texts(pair)[0] == ("Ann as Ann slept.", "Ann as Bea slept.")
    assert texts({"other": "t", "text": "u"}, ["other"])[0] == ("t",)
    assert texts({"other": 1}) == ((), "", (), ()) and texts("text") == ((), "", (), ())
    assert item("b", 0, chosen).prompt == chosen["query"]
    assert [item("b", 7, row).name for row in ({"id": "i"}, {"task_id": 3}, {})] == ["i", "3", "7"]


def test_files_are_named_by_path_glob_and_folder_and_their_faults_by_name(tmp_path):
    path = benchmark(tmp_path)
    plain = benchmark(tmp_path, ROWS[:1], "plain.jsonl")
    (tmp_path / "README.md").write_text("no benchmark")
    assert resources(Decontaminate(benchmarks=[f"{tmp_path}/*.jsonl*", path])) == sorted([path, plain])
    assert resources(Decontaminate(benchmarks=[str(tmp_path)])) == sorted([path, plain])
    assert resources(Decontaminate(benchmarks=[f"file://{tmp_path}/*.jsonl"])) == [f"file://{plain}"]
    with pytest.raises(UserError, match="no benchmark file matches .*nothing"):
        resources(Decontaminate(benchmarks=[f"{tmp_path}/nothing*"]))
    with pytest.raises(UserError, match="cannot read .*absent.jsonl"):
        index_benchmarks(Decontaminate(benchmarks=[f"{tmp_path}/absent.jsonl"]))
    (tmp_path / "bad.jsonl").write_text("{broken")
    with pytest.raises(UserError, match="bad.jsonl .JSONDecodeError"):
        index_benchmarks(Decontaminate(benchmarks=[f"{tmp_path}/bad.jsonl"]))
    odd = benchmark(tmp_path, [{"unknown": LONG}], "odd.jsonl")
    with pytest.raises(UserError, match="odd.jsonl has no text in .*decontaminate.fields"):
        index_benchmarks(Decontaminate(benchmarks=[odd]))
    assert kept([LONG], benchmarks=[odd], fields=["unknown"]) == []


def test_paths_are_found_from_another_folder(tmp_path, monkeypatch):
    benchmark(tmp_path)
    monkeypatch.chdir(tmp_path)
    settings = Decontaminate(benchmarks=["quiz.jsonl.gz", "sample:", "s3://bucket/x.jsonl"])
    assert settings.benchmarks == (str(tmp_path / "quiz.jsonl.gz"), "sample:", "s3://bucket/x.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Decontaminate.model_validate(settings.model_dump(mode="json"))
    assert again == settings and kept([LONG], benchmarks=again.benchmarks[:1]) == []


def test_a_line_separator_inside_a_string_does_not_end_a_row(tmp_path):
    assert kept([LONG], benchmarks=[benchmark(tmp_path, [{"query": "line\u2028 " + LONG}])]) == []


def test_text_that_is_no_unicode_is_read(tmp_path):
    (tmp_path / "odd.jsonl").write_text(json.dumps({"query": f"\ud800 {LONG}"}))
    assert kept([LONG], benchmarks=[str(tmp_path / "odd.jsonl")]) == []


def test_the_index_is_an_artifact_whose_bytes_wake_the_stage(tmp_path):
    """What a file is called or where it lies is nothing to documents; what it holds is."""
    root = Root(str(tmp_path / "home"))
    build = Build(root, run_id="test", workers=1, as_tasks=False)
    documents = store(root, "documents", shard([LONG, FILLER]).select(decontaminate.needs["documents"]))
    table = shard([LONG, FILLER])
    spans, rows = store(root, "spans", spans_of(table)), store(root, "kept", all_rows(table))

    def made(settings):
        (index,) = run_stage(benchmark_index, [Unit()], settings, build)
        tables = {"documents": documents, "spans": spans, "kept": rows, "benchmarks": index.table}
        return index.table.sha256, run_stage(decontaminate, [Unit(tables)], settings, build)[0].table.rows

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    first, left = made(Decontaminate(benchmarks=[benchmark(here)]))
    assert left == 1 and made(Decontaminate(benchmarks=[benchmark(there)])) == (first, left)
    other, left = made(Decontaminate(benchmarks=[benchmark(here, ROWS[1:])]))
    assert other != first and left == 2


def test_the_index_is_the_same_bytes_again_and_lies_in_the_table(tmp_path):
    settings = Decontaminate(benchmarks=[benchmark(tmp_path)])
    one, two = index_benchmarks(settings), index_benchmarks(settings)
    assert one.equals(two)
    index = from_table(one)
    assert len(index.starts) == 3 and not index.words.flags.owndata
    assert np.diff(index.starts).tolist() == [20, 9]
