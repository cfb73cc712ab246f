"""train-tokenizer: a byte-level BPE tokenizer from a published corpus."""

import json
import logging
import os
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tiktoken
from prefect import flow
from pydantic import Field

from flows.build_corpus import Home, Workers, recorded
from tasks import ledger
from tasks.errors import UserError
from tasks.publish import read_manifest, version_folder
from tasks.schema import KEPT, SPANS
from tasks.spans import matching
from tasks.stage import Artifact, Build, Unit, run_stage, store
from tasks.storage import Root, home_uri
from tasks.tokenize import Tokenize, encoding_of, excerpt, quotas, tokenizer
from tasks.tokenizer import DESCRIPTION, RANKS, encode, from_files, named, to_files

log = logging.getLogger("gristmill.flow")

COMPARED_BYTES = 1_000_000      # of text on which tokenizers are compared
BASELINE = "gpt2"


@flow(name="train-tokenizer", description="Trains a byte-level BPE tokenizer on a corpus; saved in tiktoken's form.")
def train_tokenizer(
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$", description="the tokenizer's name")] = "corpus",
    corpus: Annotated[str, Field(description="the corpus to train on")] = "corpus",
    version: Annotated[int | None, Field(description="its version; the current one by default")] = None,
    vocab_size: Annotated[int, Field(ge=261, le=1 << 24, description="tokens, the special ones included")] = 32_768,
    train_bytes: Annotated[int, Field(gt=0, description="text to train on: a sample of the documents")] = 100_000_000,
    workers: Workers = 0,
    home: Home = None,
) -> dict[str, Any]:
    """Trains on a sample of the documents that a published version holds, scrubbed as they are there, and writes
    HOME/tokenizers/NAME/. Use it with `--set tokenize.tokenizer=HOME/tokenizers/NAME`.

    Returns name, folder, n_vocab and bytes per token, beside GPT-2's where its files are in TIKTOKEN_CACHE_DIR.
    Raises UserError for an unknown corpus or version, and when the tables of its documents are gone.
    """
    root = Root(home_uri(home))
    if name in tiktoken.list_encoding_names():
        raise UserError(f"{name} is the name of one of tiktoken's encodings; give the tokenizer another")
    settings = Tokenize(vocab_size=vocab_size, train_bytes=train_bytes)
    parameters = {"corpus": corpus, "version": version, "vocab_size": vocab_size, "train_bytes": train_bytes}
    with recorded(root, name, "train-tokenizer", parameters) as run_id:
        build = Build(root, run_id, workers or os.cpu_count() or 1)
        manifest = read_manifest(root, corpus, version)
        units = documents_of(root, manifest)
        shares = quotas([unit.inputs["kept"].rows for unit in units], settings)
        texts = [done.table for done in run_stage(
            excerpt, [Unit(unit.inputs, {"quota": share}) for unit, share in zip(units, shares, strict=True)],
            settings, build)]
        trained = run_stage(tokenizer, [Unit({"texts": texts})], settings, build)[0].table
        encoding = renamed(encoding_of(root.read_table(trained.path)), name)
        files = to_files(encoding)
        digests = {file: root.write_bytes(f"tokenizers/{name}/{file}", files[file]) for file in (RANKS, DESCRIPTION)}
        summary = {"tokenizer": name, "folder": root.url(f"tokenizers/{name}"), "n_vocab": encoding.n_vocab,
                   "corpus": corpus, "version": manifest["version"], "bytes_per_token": compared(root, texts, encoding)}
        ledger.record(root, "artifact", f"tokenizers/{name}",
                      {"files": digests, "n_vocab": encoding.n_vocab, "corpus": corpus, "version": manifest["version"]},
                      run_id)
    rates = ", ".join(f"{who} {rate:.3f}" for who, rate in summary["bytes_per_token"].items())
    log.info("%s: %d tokens; bytes per token on its training text: %s", name, encoding.n_vocab, rates)
    return summary


def documents_of(root: Root, manifest: dict[str, Any]) -> list[Unit]:
    """For each documents shard of a version, the `excerpt` inputs: the documents that its plan has, and their spans.

    Raises UserError when the shard's tables are gone.
    """
    path = f"{version_folder(manifest['name'], manifest['version'])}/{manifest['plan']['path']}"
    plan = root.read_table(path, ["doc_id", "shard", "row", "repeat"])
    plan = plan.filter(pc.equal(plan["repeat"], 0)).sort_by([("shard", "ascending"), ("row", "ascending")])
    ends = np.searchsorted(plan["shard"].to_numpy(), np.arange(len(manifest["parts"]) + 1))
    units = []
    for number, part in enumerate(manifest["parts"]):
        kept = plan.slice(ends[number], ends[number + 1] - ends[number]).select(KEPT.names).combine_chunks()
        if len(kept):
            spans = made(root, part["spans"])
            edits = matching(kept, root.read_table(spans.path, SPANS.names))
            mine = store(root, "edited", pa.table([*kept.cast(KEPT).columns, edits], schema=SPANS))
            units.append(Unit({"documents": made(root, part["documents"]), "kept": mine}))
    return units


def made(root: Root, path: str) -> Artifact:
    """The artifact of a stage's table. Raises UserError when it is gone."""
    try:
        record = json.loads(root.read_bytes(f"{path.rsplit('/', 1)[0]}/done.json"))["table"]
        if root.exists(path):
            return Artifact(**record)
    except FileNotFoundError:
        pass
    raise UserError(f"{root.url(path)}, which the corpus is made of, is gone; build the corpus again to make it anew")


def renamed(encoding: tiktoken.Encoding, name: str) -> tiktoken.Encoding:
    """The same encoding under another name."""
    files = to_files(encoding)
    about = json.loads(files[DESCRIPTION]) | {"name": name}
    return from_files({RANKS: files[RANKS], DESCRIPTION: json.dumps(about).encode()})


def compared(root: Root, texts: list[Artifact], encoding: tiktoken.Encoding) -> dict[str, float]:
    """UTF-8 bytes per token on the first COMPARED_BYTES of the training text, of `encoding` and of GPT-2.

    GPT-2's is left out unless TIKTOKEN_CACHE_DIR says where its files are: no download for a comparison.
    """
    encodings = {encoding.name: encoding}
    if os.environ.get("TIKTOKEN_CACHE_DIR"):
        try:
            encodings[BASELINE] = named(BASELINE)
        except UserError as error:
            log.info("no comparison with %s: %s", BASELINE, error)
    sample, size = [], 0
    for artifact in texts:
        for text in root.read_table(artifact.path, ["text"])["text"]:
            if size < COMPARED_BYTES:
                sample.append(text.as_py())
                size += len(sample[-1].encode())
    return {who: size / max(sum(len(encode(one, text)) for text in sample), 1) for who, one in encodings.items()}
