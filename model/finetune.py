"""Supervised finetuning on instruction rows: `python -m model.finetune CONFIG.json`.

A row {instruction, input, output} becomes

    <|user|>instruction[\\n\\ninput]<|end|><|assistant|>output<|end|>

with the tokenizer's own special tokens; only the output and its <|end|> count in the loss. Rows are packed as
documents are: none sees another.
"""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.config import ModelConfig
from model.data import Samples
from model.process import run_main
from model.rows import instruction_rows
from model.settings import Finetune, parse
from model.tokenizer import Tokenizer, load_tokenizer
from model.train import Material, train
from tasks.errors import UserError


def conversation(row: dict, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (int64) of an instruction row, and which of them are answer (bool)."""
    question = row["instruction"] + (f"\n\n{row['input']}" if row.get("input") else "")
    end = tokenizer.token("<|end|>")
    prompt = [tokenizer.token("<|user|>"), *tokenizer.encode(question), end, tokenizer.token("<|assistant|>")]
    answer = [*tokenizer.encode(row["output"]), end]
    return np.array(prompt + answer), np.arange(len(prompt) + len(answer)) >= len(prompt)


def instructions(config: dict, settings: Finetune, model: ModelConfig, length: int) -> Material:
    """The instruction rows that `config["rows"]` names. Rows longer than `length` are left out and counted."""
    tokenizer = load_tokenizer(config["tokenizer"])
    if tokenizer.n_vocab > model.vocab_size:
        raise UserError(f"{config['tokenizer']}: {tokenizer.n_vocab} tokens, but the model's embedding has "
                        f"{model.vocab_size} rows: use the tokenizer that the model was pretrained with")
    rows, digest = instruction_rows(config["rows"])
    texts = [conversation(row, tokenizer) for row in rows]
    numbers = [number for number, (tokens, _) in enumerate(texts) if len(tokens) <= length]
    if len(numbers) < len(texts):
        print(f"{len(texts) - len(numbers)} of {len(texts)} rows are longer than {length} tokens: left out", flush=True)
    if not numbers:
        raise UserError(
            f"{config['rows']}: every row is longer than sequence_length {length}; raise it up to the model's "
            f"context of {model.context}"
        )
    hashes = {number: int.from_bytes(blake2b(texts[number][0].tobytes(), digest_size=8).digest(), "big")
              for number in numbers}
    below = settings.held_out * 2**64
    held = [number for number in numbers if hashes[number] < below]
    chosen = [number for number in numbers if hashes[number] >= below] or numbers

    def samples(which: list[int]) -> Samples:
        return Samples(np.array([len(texts[number][0]) for number in which]), lambda i: texts[which[i]], tokenizer.eot,
                       length, digest, settings.seed, np.array([int(texts[number][1].sum()) for number in which]),
                       bos=tokenizer.bos)

    training = samples(chosen)

    def write_packing(path: Path, last: int) -> None:
        """sample_id, segment, row (of the instruction file), offset, length."""
        columns = [(sample, segment, chosen[document], offset, size) for sample in range(last)
                   for segment, (document, offset, size) in enumerate(training.segments(sample))]
        names = ["sample_id", "segment", "row", "offset", "length"]
        pq.write_table(pa.table(dict(zip(names, np.array(columns, np.int64).T, strict=True))), path, compression="zstd")

    return Material(
        training,
        samples(held) if held else None,
        None,
        write_packing,
        config["tokenizer"],
        {"rows": {"uri": config["rows"], "sha256": digest, "rows": len(chosen), "too_long": len(texts) - len(numbers)}},
    )


def main(config: dict) -> dict | None:
    return train(config, parse(Finetune, config["settings"]), instructions)


if __name__ == "__main__":
    run_main(main)
