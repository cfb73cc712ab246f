"""Names of people, found by a model that spaCy (https://spacy.io) runs: an option, since it costs what it costs.

The model is part of what decides a corpus, so it is pinned: `NAME==VERSION` of an installed package, or the path of a
folder, whose files count by their content. Each text goes through by itself, so what is found in it does not depend on
others.
"""

import importlib.metadata
import os
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from tasks.errors import UserError

TYPES = ("NAME", "PLACE", "ORGANISATION")
MAX_CHARS = 100_000     # of a text that spaCy gets at once; its parser takes a gigabyte a million


def files(model: str) -> list[str]:
    """The files that decide what a model finds: its own, and the one that names spaCy's version.

    Raises UserError when spaCy or the model is not installed, or has another version than `model` names.
    """
    folder = _folder(model)
    own = sorted(str(path) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [str(Path(_spacy().__file__).with_name("about.py")), *own]


def entities(texts: pa.Array, model: str, labels: dict[str, str]) -> dict[int, list[tuple[str, int, int]]]:
    """(type, start, end) in code points of what a model finds in each text, by the text's index.

    Args:
        texts: n texts.
        model: as in the setting `scrub.ner`.
        labels: the model's label -> type.

    Raises UserError as `files` does.
    """
    pipeline = _loaded(str(_folder(model)))
    found = {}
    for index, text in enumerate(texts.to_pylist()):
        finds, at = [], 0
        while text and at < len(text):
            end = len(text)
            if end - at > MAX_CHARS:    # at a line's end, or else a word's
                end = max(text.rfind("\n", at, at + MAX_CHARS), text.rfind(" ", at, at + MAX_CHARS), at) + 1
                end = end if end > at + 1 else at + MAX_CHARS
            finds += [(labels[entity.label_], at + entity.start_char, at + entity.end_char)
                      for entity in pipeline(text[at:end]).ents if entity.label_ in labels]
            at = end
        if finds:
            found[index] = finds
    return found


def _spacy():
    try:
        import spacy
    except ImportError:
        raise UserError("scrub.ner needs spaCy, which is not installed: pip install 'gristmill[ner]', or leave "
                        "scrub.ner out") from None
    return spacy


def _folder(model: str) -> Path:
    _spacy()
    name, pinned, version = model.partition("==")
    if pinned:
        try:
            there = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(f"scrub.ner names the model {model}, which is not installed: python -m spacy download "
                            f"{name}-{version} --direct") from None
        if there != version:
            raise UserError(f"scrub.ner names the model {model}, but {there} is installed: python -m spacy download "
                            f"{name}-{version} --direct, or set scrub.ner to {name}=={there}")
        return Path(importlib.import_module(name).__file__).parent
    if not (Path(model) / "config.cfg").is_file():
        hint = "" if os.sep in model else "; an installed model has its version: en_core_web_sm==3.8.0"
        raise UserError(f"scrub.ner names {model}, which is no folder of a spaCy model (it has no config.cfg){hint}")
    return Path(model)


@lru_cache(maxsize=2)
def _loaded(folder: str):
    spacy = _spacy()
    if (Path(folder) / "config.cfg").is_file():
        return spacy.load(folder)
    return importlib.import_module(Path(folder).name).load()
