"""Memory that is predicted before a run, beside the bytes of the tensors that are there."""

import json
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils._python_dispatch import TorchDispatchMode

from model import evaluate, process
from model.config import PRESETS, model_config
from model.engine import Torch
from model.memory import (
    ROOM,
    activations,
    cast_parameters,
    hidden_parameters,
    largest_micro_batch,
    layer_activations,
    memory,
    sentence,
    table,
)
from model.objective import objective
from model.settings import Optimisation
from model.transformer import Transformer, token_losses

FORMS = {"tiny": {}, "gpt2-tiny": {}, "qwen3-tiny": {}, "bert-tiny": {"context": 256}}


def kept_for_backward(config, rows: int, length: int, bf16: bool, cast: bool = False) -> int:
    """Bytes that autograd keeps of a forward pass and its loss, weights left out."""
    model = Transformer(config, "sdpa").initialise(0)
    model = model.bfloat16() if bf16 and not cast else model
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()           # held, so none is used again
        return tensor

    tokens = torch.randint(0, config.vocab_size, (rows, length))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            logits = model(tokens)
        loss = token_losses(logits, tokens).sum()
    assert loss.isfinite()
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("preset", FORMS)
def test_activations_are_those_that_autograd_keeps(preset, bf16):
    config = model_config(preset, vocab_size=512, **FORMS[preset])
    softmax = 4 * config.vocab_size
    found = kept_for_backward(config, 2, 96, bf16)
    assert found == pytest.approx(2 * 96 * (activations(config, bf16) + softmax), rel=2e-3)


@pytest.mark.parametrize("preset", ["tiny", "gpt2-tiny", "qwen3-tiny"])     # layer norms are in bf16 on CPUs alone
def test_autocast_keeps_its_bf16_weights_and_a_residual_stream_in_fp32(preset):
    config = model_config(preset, vocab_size=512)
    softmax = 4 * config.vocab_size
    found = kept_for_backward(config, 2, 96, True, cast=True) - 2 * 96 * softmax
    expected = memory(config, 2, 96, engine="torch")
    assert expected.buffers == 2 * cast_parameters(config)
    assert found == pytest.approx(expected.activations + expected.buffers, rel=2e-3)


class Alive(TorchDispatchMode):
    """The most bytes that tensors made meanwhile held at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.gone, storage.nbytes())
        return result

    def gone(self, size: int) -> None:
        self.now -= size


def test_gradients_of_micro_steps_take_fp32_and_stage_2():
    config = model_config("tiny", vocab_size=512)
    one, two = (memory(config, 1, 16, stage=stage, ranks=4, accumulated=True) for stage in (1, 2))
    assert one == two and two.gradients == 4 * -(-config.parameters // 4) == 2 * memory(
        config, 1, 16, stage=2, ranks=4).gradients
    first, later = (memory(config, 1, 16, bf16=False, accumulated=accumulated) for accumulated in (False, True))
    assert (first.gradients, first.step) == (later.gradients, later.step) and first.backward < later.backward


@pytest.mark.parametrize(("z_loss", "bf16"), [(0.0, False), (0.0, True), (1e-4, False), (1e-4, True)])
def test_the_loss_needs_so_many_copies_of_the_logits(z_loss, bf16):
    config, dtype = model_config("tiny", vocab_size=50_000), torch.bfloat16 if bf16 else torch.float32
    hidden, head = torch.randn(64, 8, dtype=dtype), torch.randn(50_000, 8, dtype=dtype, requires_grad=True)
    with Alive() as alive:
        total, _ = objective(torch.nn.functional.linear(hidden, head), torch.randint(0, 50_000, (64,)), z_loss)
        total.backward()
    assert alive.most == pytest.approx(memory(config, 1, 64, z_loss=z_loss).logits, rel=0.05)


@pytest.mark.parametrize("accumulated", [False, True])
def test_the_most_of_forward_backward_and_step_is_as_predicted(accumulated):
    config = model_config("tiny", vocab_size=2048)
    settings = Optimisation(engine="torch", batch=4, micro_batch=2, attention="sdpa")
    most = []
    with Alive() as alive:
        engine = Torch(Transformer(config).initialise(0), settings, torch.device("cpu"))
        tokens = torch.randint(0, 2048, (2, 96))
        for _ in range(2):                              # the optimiser's state comes with the first step
            for _ in range(1 + accumulated):
                loss = token_losses(engine.model(tokens), tokens).mean()
                engine.backward(loss)
                del loss
            most.append(alive.most)
            alive.most = alive.now
            norm = clip_grad_norm_(engine.module.parameters(), 1.0)
            engine.optimizer.step()
            most.append(alive.most)
            engine.drop()
            del norm
            alive.most = alive.now
    found = memory(config, 2, 96, engine="torch", bf16=False, accumulated=accumulated)
    assert most[2:] == pytest.approx([found.weights + found.optimizer + part for part in (found.backward, found.step)],
                                     rel=0.03)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_state_is_that_of_the_engine(kind):
    config = model_config("tiny", vocab_size=512)
    settings = Optimisation(engine="torch", batch=1, micro_batch=1, optimizer=kind)
    engine = Torch(Transformer(config).initialise(0), settings, torch.device("cpu"))
    tokens = torch.randint(0, 512, (1, 16))
    token_losses(engine.model(tokens), tokens).mean().backward()
    weights = list(engine.module.parameters())
    gradients = sum(p.grad.nbytes for p in weights)
    engine.optimizer.step()
    moments = sum(value.nbytes for state in engine.optimizer.state.values() for value in state.values()
                  if value.dim())
    found = memory(config, 1, 16, engine="torch", bf16=False, optimizer=kind)
    assert (found.weights, found.gradients, found.optimizer) == (sum(p.nbytes for p in weights), gradients, moments)


def test_what_zero_shards_is_shared():
    config = model_config("gpt2-124m", vocab_size=50257)
    n = config.parameters
    for ranks, expected in ((1, [16, 16, 16]), (8, [4 + 12 / 8, 2 + 14 / 8, 16 / 8])):     # 2 + 2 + 12, as the paper
        each = [memory(config, 0, 1024, stage=stage, ranks=ranks) for stage in (1, 2, 3)]
        found = [(one.weights + one.gradients + one.optimizer) / n for one in each]
        assert found == pytest.approx(expected, abs=1e-6)
        # a step holds the gradients, their flat copy and that in fp32 (2 + 2 + 4 bytes); ZeRO-3 its bucket too
        assert [one.step / n for one in each] == pytest.approx([8 / ranks, 8 / ranks, 8 / ranks + 2], abs=1e-6)
        # the bucket is no larger than the model, under ZeRO-3 its weights are there whole as well
        assert [one.buffers for one in each] == [2 * n, 2 * n, 4 * n]
    fp32 = memory(config, 0, 1024, stage=1, bf16=False, zero={"reduce_bucket_size": 1000})
    assert (fp32.buffers, fp32.total) == (4000, 4 * n + 12 * n + 8 * n)     # the step is the worst without a batch
    large = json.loads((Path(__file__).parents[2] / "infra/deepspeed/large.json").read_text())["zero_optimization"]
    assert n < large["reduce_bucket_size"] == 2e8                           # taken whole, whatever the model has
    assert [memory(config, 0, 1024, stage=stage, zero=large).buffers for stage in (1, 2, 3)] == [
        8e8, 8e8, 4e8 + 2 * n]                                              # and twice where it overlaps


def test_what_else_a_step_and_offloading_change():
    config = model_config("gpt2-124m", vocab_size=50257)
    n, hidden = config.parameters, 12 * 12 * 768**2
    assert hidden_parameters(config) == hidden
    for engine, stage in (("torch", 1), ("deepspeed", 0)):                  # the second sends one flat copy
        copy = 4 * n if engine == "deepspeed" else 0
        alone, two = (memory(config, 0, 0, engine=engine, stage=stage, ranks=ranks) for ranks in (1, 2))
        assert (alone.step, two.step) == (4 * n, 4 * n + copy)
        muon = memory(config, 0, 0, engine=engine, stage=stage, ranks=2, optimizer="muon")
        assert (muon.step, muon.optimizer) == (4 * n + copy + 4 * hidden, 8 * n - 4 * hidden)
    held = {(stage, offload): memory(config, 0, 0, stage=stage, offload=offload) for stage, offload in
            ((1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters"))}
    assert all(one.optimizer == 0 for one in held.values())
    assert [one.gradients for one in held.values()] == [2 * n, 0, 0, 0]
    assert [one.weights for one in held.values()] == [2 * n, 2 * n, 2 * n, 0]


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
    tiny = model_config("tiny", vocab_size=512)
    assert "predicted: 0.04 GiB" in sentence(tiny, 4, 256) and "warning" not in sentence(tiny, 4, 256, 1 << 30)
    assert "warning: the GPU has 0.02 GiB: lower micro_batch, set activation_checkpointing" in sentence(
        tiny, 4, 256, 1 << 24)


@pytest.mark.parametrize(("preset", "rows", "published"), [
    ("gpt2-124m", 50257, 124_439_808), ("llama-7b", 32000, 6_738_415_616), ("llama-8b-long", 128256, 8_030_261_248),
    ("llama-1b", 128256, 1_235_814_400), ("llama-3b", 128256, 3_212_749_824), ("qwen3-0.6b", 151936, 596_049_920),
    ("bert-base", 30522, 109_514_298)])
def test_the_published_models_have_their_published_sizes(preset, rows, published):
    assert model_config(preset, vocab_size=rows).parameters == published


def test_a_full_gpu_is_said_with_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(process, "_leave", sys.exit)
    monkeypatch.setattr(process, "_die_with_parent", lambda: None)
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "config.json")])

    def work(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    for given, says in (((), ROOM), ((evaluate.ROOM,), "lower batch")):         # each kind of run has its own settings
        with pytest.raises(SystemExit) as left:
            process.run_main(work, *given)
        message = json.loads((tmp_path / "error.json").read_text())["message"]
        (tmp_path / "error.json").unlink()
        assert left.value.code == 2 and message.startswith(f"the GPU's memory is full: {says}")
    assert all(setting in ROOM for setting in ("micro_batch", "activation_checkpointing", "zero_stage", "offload"))
