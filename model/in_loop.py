"""Multiple-choice benchmarks while a model is trained, scored as `gristmill evaluate` scores them."""

from collections.abc import Iterator

import torch

from model.choices import benchmark, choices
from model.config import ModelConfig
from model.rows import check_names
from model.settings import Evaluate, Optimisation
from model.tokenizer import Tokenizer
from tasks.errors import UserError


class Trained:
    """A model under its training engine, with the parts that scoring asks of one."""

    def __init__(self, engine, config: ModelConfig, device: torch.device):
        self.engine, self.config, self.device = engine, config, device

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.empty(0, device=self.device)            # scoring takes the device from it

    def __call__(self, inputs: torch.Tensor, **asked) -> torch.Tensor:
        return self.engine.model(inputs, **asked)


def check(settings: Optimisation, config: ModelConfig) -> None:
    """UserError for benchmarks that cannot be scored, before anything is trained."""
    if settings.benchmarks and not config.causal:
        raise UserError("setting benchmarks: the likelihood of a choice is that of a decoder; leave it empty for an "
                        "encoder")
    check_names("benchmarks", settings.benchmarks)
    for path in settings.benchmarks:
        choices(path)


def scores(engine, tokenizer: Tokenizer, settings: Optimisation, config: ModelConfig, device: torch.device) -> dict:
    """{benchmark: {"acc", "acc_norm", "acc_bytes"}} of the first questions of each file, zero-shot.

    The ranks share them (see model/likelihood), and all get the scores.
    """
    asked = Evaluate(limit=settings.benchmark_questions, batch=settings.micro_batch)
    model, found = Trained(engine, config, device), {}
    for path in settings.benchmarks:
        for row in benchmark(model, tokenizer, path, asked):
            found.setdefault(row["task"], {})[row["metric"]] = row["value"]
    return found
