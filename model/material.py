"""What a pretraining reads and holds out, out of a published corpus version."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from model.config import ModelConfig, check_fit
from model.corpus import document_hashes, held_out, open_corpus
from model.data import Samples, corpus_samples, write_packing
from model.masked import Masked, word_joins
from model.mixture import mixed_samples
from model.settings import Pretrain
from model.tokenizer import load_tokenizer
from tasks.errors import UserError


@dataclass
class Material:
    """What a run reads. `held_out_bytes` are the UTF-8 sizes of the held-out documents (None: not asked)."""

    samples: Samples
    held_out: Samples | None
    held_out_bytes: np.ndarray | None
    write_packing: Callable[[Path, int], None]      # (path, number of samples the run will see)
    tokenizer: str                                  # folder to copy
    about: dict                                     # goes into the checkpoints: the corpus and its sha256
    groups: dict[str, np.ndarray] = field(default_factory=dict)     # held-out documents (bool) by source, for one
    name: Callable[[int], str] = str                # of the document of a sample's segment


def pretraining(config: dict, settings: Pretrain, model: ModelConfig, length: int) -> Material:
    """The documents of a published corpus version. UserError when it does not fit the model."""
    corpus = open_corpus(config["corpus"]["folder"])
    if corpus.digest != config["corpus"]["manifest_sha256"]:
        raise UserError(f"{corpus.folder}/manifest.json changed since the run was configured: "
                        "start a run of another name")
    n_vocab = corpus.manifest["tokenizer"]["n_vocab"]
    check_fit(settings, model, n_vocab, f"corpus {corpus.label}")
    held = held_out(corpus, settings.held_out, settings.held_out_at_least)
    chosen = np.flatnonzero(~held)
    samples = mixed_samples(corpus, chosen, length, settings.seed, settings.mixture)
    n_tokens = int(samples.lengths.sum())
    if n_tokens < length * settings.batch:
        raise UserError(
            f"corpus {corpus.label} has {n_tokens:,} tokens to train on, fewer than one step of {settings.batch} "
            f"sequences of {length}: lower batch or sequence_length, or build a larger corpus"
        )
    test = np.flatnonzero(held & (corpus.documents["repeat"].to_numpy() == 0))
    test = test[np.argsort(document_hashes(corpus)[test], kind="stable")]
    in_loop = np.cumsum(corpus.documents["n_tokens"].to_numpy()[test]) <= settings.evaluate_rows * length
    test = np.sort(test[:max(1, int(in_loop.sum()))])   # all of a document, so that its bytes are known
    n_bytes = corpus.documents["n_bytes"].to_numpy()[test].astype(np.int64)
    groups = _groups(corpus.documents[settings.evaluate_by].take(test).to_pylist(), n_bytes) \
        if settings.evaluate_by != "none" else {}
    ids, index = corpus.documents["doc_id"], samples.index
    few = corpus_samples(corpus, test, length, 0, whole=True) if len(test) else None

    packing = partial(write_packing, corpus=corpus, samples=samples)
    if not model.causal:
        joins = word_joins(load_tokenizer(f"{corpus.folder}/tokenizer")) if settings.whole_words else None
        masked = [Masked(each, n_vocab, n_vocab, settings.masking, joins) if each else None for each in (samples, few)]
        samples, few, n_bytes = *masked, None           # bits per byte are for models that predict every token
    return Material(samples, few, n_bytes, packing, f"{corpus.folder}/tokenizer",
                    {"corpus": {"name": corpus.manifest["name"], "version": corpus.manifest["version"],
                                "manifest_sha256": corpus.digest}},
                    groups, lambda document: str(ids[int(index[document])].as_py()))


def _groups(values: list, n_bytes: np.ndarray, most: int = 20) -> dict[str, np.ndarray]:
    """Which documents (bool) have each value: of two or more, the `most` that have the most bytes."""
    column = np.array(["unknown" if value is None else str(value) for value in values], dtype=object)
    found = {value: column == value for value in sorted(set(column))}
    largest = sorted(found, key=lambda value: -int(n_bytes[found[value]].sum()))[:most]
    return {value: found[value] for value in largest} if len(found) > 1 else {}
