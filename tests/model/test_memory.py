"""Memory that is predicted before a run, beside the bytes of the tensors that are there."""

import pytest
import torch

from model.config import PRESETS, model_config
from model.engine import Torch
from model.memory import activations, largest_micro_batch, layer_activations, memory, sentence, table
from model.settings import Optimisation
from model.transformer import Transformer, token_losses

FORMS = {"tiny": {}, "gpt2-tiny": {}, "qwen3-tiny": {}, "bert-tiny": {"context": 256}}


def kept_for_backward(config, rows: int, length: int, bf16: bool) -> int:
    """Bytes that autograd keeps of a forward pass and its loss, weights left out."""
    model = Transformer(config, "sdpa").initialise(0)
    model = model.bfloat16() if bf16 else model
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()           # held, so none is used again
        return tensor

    tokens = torch.randint(0, config.vocab_size, (rows, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_losses(model(tokens), tokens).sum()
    assert loss.isfinite()
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("preset", FORMS)
def test_activations_are_those_that_autograd_keeps(preset, bf16):
    config = model_config(preset, vocab_size=512, **FORMS[preset])
    softmax = 4 * config.vocab_size
    found = kept_for_backward(config, 2, 96, bf16)
    assert found == pytest.approx(2 * 96 * (activations(config, bf16) + softmax), rel=2e-3)


def test_the_state_is_that_of_the_engine():
    config = model_config("tiny", vocab_size=512)
    settings = Optimisation(engine="torch", batch=1, micro_batch=1)
    engine = Torch(Transformer(config).initialise(0), settings, torch.device("cpu"))
    tokens = torch.randint(0, 512, (1, 16))
    token_losses(engine.model(tokens), tokens).mean().backward()
    weights = list(engine.module.parameters())
    gradients = sum(p.grad.nbytes for p in weights)
    engine.optimizer.step()
    moments = sum(value.nbytes for state in engine.optimizer.state.values() for value in state.values()
                  if value.dim())
    found = memory(config, 1, 16, engine="torch", bf16=False)
    assert (found.weights, found.gradients, found.optimizer) == (sum(p.nbytes for p in weights), gradients, moments)


def test_what_zero_shards_is_shared():
    config = model_config("gpt2-124m", vocab_size=50257)
    n = config.parameters
    alone = {stage: memory(config, 0, 1024, stage=stage, bucket=0).total for stage in (1, 2, 3)}
    assert set(alone.values()) == {16 * n}                                  # 2 + 2 + 12, as the paper counts
    eight = [memory(config, 0, 1024, stage=stage, ranks=8, bucket=0).total / n for stage in (1, 2, 3)]
    assert eight == pytest.approx([4 + 12 / 8, 2 + 14 / 8, 16 / 8], abs=1e-6)


def test_checkpointing_keeps_an_input_a_layer_and_one_layer():
    config = model_config("llama-7b", vocab_size=32000)
    less, all_of_it = activations(config, checkpointing=True), activations(config)
    assert all_of_it - less == config.n_layers * layer_activations(config) - (
        config.n_layers * 2 * config.width + layer_activations(config))
    most = largest_micro_batch(config, 4096, 80, ranks=8)
    fits = [memory(config, count, 4096, ranks=8).total < 0.95 * 80 * 2**30 for count in (most, most + 1)]
    assert fits == [True, False] and largest_micro_batch(config, 4096, 10) == 0
    assert largest_micro_batch(config, 4096, 80, ranks=8, checkpointing=True) > 5 * most


def test_the_table_goes_from_a_million_to_seven_billion():
    rows = table(8, 80, 32000)
    sizes = [float(row["parameters"].rstrip("M").replace(",", "")) for row in rows]
    assert [row["preset"] for row in rows] == list(PRESETS) and min(sizes) < 5 and max(sizes) > 6700
    assert "predicted: 0.97 GiB" in sentence(model_config("tiny", vocab_size=512), 4, 256)


@pytest.mark.parametrize(("preset", "rows", "published"), [
    ("gpt2-124m", 50257, 124_439_808), ("llama-7b", 32000, 6_738_415_616), ("llama-8b-long", 128256, 8_030_261_248),
    ("llama-1b", 128256, 1_235_814_400), ("llama-3b", 128256, 3_212_749_824), ("qwen3-0.6b", 151936, 596_049_920),
    ("bert-base", 30522, 109_514_298)])
def test_the_published_models_have_their_published_sizes(preset, rows, published):
    assert model_config(preset, vocab_size=rows).parameters == published
