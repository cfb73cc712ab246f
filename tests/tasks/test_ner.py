"""Names found by a spaCy model: here one of rules, made by the test. What spaCy is not needed for runs without it."""

import importlib.util
import sys

import pytest

from tasks.errors import UserError
from tasks.scrub import Scrub, apply, find, ner, scrub
from tasks.scrub.types import DEFAULT, NAMES
from tasks.spans import Span
from tasks.stage import Unit

needs_spacy = pytest.mark.skipif(importlib.util.find_spec("spacy") is None, reason="spaCy is an extra: gristmill[ner]")


@pytest.fixture
def model(tmp_path):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([
        {"label": "PERSON", "pattern": [{"LOWER": "mira"}, {"LOWER": "hollunder"}]},
        {"label": "GPE", "pattern": "Hollunderstadt"}])
    pipeline.to_disk(tmp_path / "rules")
    return str(tmp_path / "rules")


@needs_spacy
def test_names_are_found_beside_the_rest(model):
    text = "So says Mira Hollunder of Hollunderstadt (mira@hollunder.example)."
    assert find([text], Scrub(ner=model))[0] == [Span("NAME", 8, 14), Span("EMAIL", 42, 22)]
    places = Scrub(ner=model, ner_labels={"GPE": "PLACE"}, types=())
    assert find([text, "", "nobody"], places) == [[Span("PLACE", 26, 14)], [], []]
    assert find([text])[0] == [Span("EMAIL", 42, 22)]


@needs_spacy
def test_a_long_text_goes_through_in_pieces(model, monkeypatch):
    monkeypatch.setattr(ner, "MAX_CHARS", 50)
    text = "and so on " * 30 + "Mira Hollunder\n" + "é" * 200 + " Mira Hollunder"
    found = find([text], Scrub(ner=model))[0]
    assert [text[span.offset:span.end] for span in found] == ["Mira Hollunder"] * 2
    assert find([apply(text, found)], Scrub(ner=model)) == [[]]


@needs_spacy
def test_the_models_files_are_part_of_the_key(model):
    unit = Unit(params={})
    before = scrub.keys(Scrub(ner=model), [unit])
    with open(f"{model}/entity_ruler/patterns.jsonl", "a") as file:
        file.write('{"label": "PERSON", "pattern": "Roe"}\n')
    assert scrub.keys(Scrub(ner=model), [unit]) != before


@needs_spacy
@pytest.mark.parametrize("name, said", [
    ("/nowhere/model", "no folder of a spaCy model"), ("en_core_web_sm", "has its version: en_core_web_sm==3.8.0"),
    ("no_such_model==1.0.0", "not installed: python -m spacy download no_such_model-1.0.0"),
    ("spacy==0.0.1", "but .* is installed"),
])
def test_a_model_that_is_not_there_is_named_with_the_remedy(name, said):
    with pytest.raises(UserError, match=said):
        find(["text"], Scrub(ner=name))
    with pytest.raises(UserError, match=said):
        scrub.keys(Scrub(ner=name), [Unit(params={})])


def test_without_spacy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError, match=r"pip install 'gristmill\[ner\]'"):
        find(["text"], Scrub(ner="en_core_web_sm==3.8.0"))


def test_it_is_off_by_default_and_labels_are_checked():
    assert Scrub().ner is None and not set(NAMES) & set(DEFAULT)
    with pytest.raises(ValueError, match="labels become NAME, PLACE, ORGANISATION, not SURNAME"):
        Scrub(ner_labels={"PERSON": "SURNAME"})
