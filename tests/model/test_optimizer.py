"""How parameters are stepped: groups, learning rates, Muon beside PyTorch's, and sizes that do not grow with width."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import model_config
from model.muon import Muon, orthogonal
from model.objective import objective
from model.optimizer import optimizer, param_groups, set_rate
from model.parametrisation import rescale
from model.schedule import learning_rate
from model.settings import Optimisation, check
from model.transformer import Transformer, token_losses
from tasks.errors import UserError


def test_learning_rates():
    cosine = Optimisation(steps=100, warmup=0.1, learning_rate=1.0, final_lr=0.1)
    rates = [learning_rate(step, cosine) for step in range(1, 101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert rates[54] == pytest.approx(0.55) and np.all(np.diff(rates[9:]) < 0)
    wsd = cosine.model_copy(update={"schedule": "wsd", "decay": 0.2})
    rates = [learning_rate(step, wsd) for step in range(1, 101)]
    assert set(rates[9:80]) == {1.0} and rates[-1] == pytest.approx(0.1) and np.all(np.diff(rates[79:]) < 0)
    assert learning_rate(100, cosine.model_copy(update={"schedule": "constant"})) == 1.0


def test_only_matrices_decay():
    model = Transformer(model_config("gpt2-tiny", vocab_size=64))
    decayed, rest = param_groups(model, Optimisation())
    assert all(p.dim() == 2 for p in decayed["params"]) and all(p.dim() == 1 for p in rest["params"])
    assert rest["weight_decay"] == 0 and sum(len(g["params"]) for g in (decayed, rest)) == len(list(model.parameters()))


@pytest.mark.parametrize("preset", ["tiny", "gpt2-tiny", "qwen3-tiny", "bert-tiny"])
def test_muon_takes_the_matrices_inside_the_blocks_alone(preset):
    model = Transformer(model_config(preset, vocab_size=64, tied=preset != "tiny"))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = param_groups(model, Optimisation(optimizer="muon"))
    muon = {names[id(p)] for group in groups if group["muon"] for p in group["params"]}
    hidden = {name for name, p in model.named_parameters()
              if p.dim() == 2 and name.startswith(("blocks.", "transform."))}
    assert muon == hidden and sum(len(group["params"]) for group in groups) == len(names)


def test_muon_steps_as_pytorch_does():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) for shape in ((24, 16), (16, 40))]
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in matrices] for _ in range(2))
    mine = Muon([{"params": ours, "muon": True, "momentum": 0.95, "parts": [], "weight_decay": 0.1}], lr=0.01)
    oracle = torch.optim.Muon(theirs, lr=0.01, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        oracle.step()
    for a, b, before in zip(ours, theirs, matrices, strict=True):
        difference = (a - b).norm() / (b - before).norm()
        assert difference < 0.01                        # it makes them orthogonal in bf16


def test_queries_keys_and_values_are_made_orthogonal_each_for_itself():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(32, 16))
    p.grad = torch.randn(32, 16)
    Muon([{"params": [p], "muon": True, "momentum": 0.0, "parts": [16, 8, 8], "weight_decay": 0.0}], lr=1.0).step()
    for piece, rows in zip(p.grad.split([16, 8, 8]), (-p.detach()).split([16, 8, 8]), strict=True):
        torch.testing.assert_close(rows, orthogonal(piece) * 0.2 * 4)
        values = torch.linalg.svdvals(rows / 0.8)
        assert values.min() > 0.3 and values.max() < 1.3


@pytest.mark.parametrize(("settings", "says"), [
    ({"optimizer": "muon", "zero_stage": 2}, "muon makes whole matrices orthogonal, and ZeRO stage 2 gives"),
    ({"optimizer": "muon"}, "gives each rank a slice of the flattened ones; set engine to torch, or optimizer to"),
    ({"schedule": "wsd", "warmup": 0.5, "decay": 0.6}, "setting decay: a warm-up over 0.5 .* 0.6 overlap"),
    ({"offload": "optimizer", "engine": "torch"}, "setting offload: it is done by DeepSpeed"),
    ({"offload": "optimizer", "zero_stage": 0}, "setting offload"),
    ({"offload": "parameters", "zero_stage": 2}, "under zero_stage 3, not 2"),
    ({"compile": True, "zero_stage": 3}, "ZeRO stage 3 has them put away"),
])
def test_settings_that_exclude_each_other(settings, says):
    with pytest.raises(UserError, match=says):
        check(Optimisation(**settings))


@pytest.mark.parametrize(("laid", "says"), [
    ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps: that is what batch and micro_batch decides"),
    ({"train_batch_size": 8}, "train_batch_size: that is what batch decides"),
    ({"train_micro_batch_size_per_gpu": "auto"}, "per_gpu: that is what micro_batch decides"),
    ({"gradient_clipping": 0.5}, "gradient_clipping: that is what clip decides"),
    ({"bf16": {"enabled": True}}, "bf16: that is what precision decides"),
    ({"fp16": {}}, "fp16: that is what precision decides"),
    ({"data_types": {"grad_accum_dtype": "bf16"}}, "data_types: that is what precision decides"),
    ({"optimizer": {"type": "Adam"}}, "optimizer: that is what optimizer decides"),
    ({"scheduler": {"type": "WarmupLR"}}, "scheduler: that is what schedule decides"),
    ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage: that is what zero_stage decides"),
    ({"zero_optimization": {"reduce_bucket_size": "auto"}}, "reduce_bucket_size: auto is for Hugging Face's Trainer"),
    ({"zero_optimization": {"offload_param": {"device": "nvme"}}}, "offload_param.device: that is what offload"),
])
def test_what_settings_decide_is_not_overridden_by_a_deepspeed_configuration(laid, says):
    with pytest.raises(UserError, match=f"setting deepspeed.*{says}"):
        check(Optimisation(deepspeed=laid))


def test_the_deepspeed_configurations_that_come_with_it_are_taken():
    files = sorted((Path(__file__).parents[2] / "infra" / "deepspeed").glob("*.json"))
    for path in files:
        check(Optimisation(deepspeed=json.loads(path.read_text())))
    assert len(files) == 2


def test_z_loss_is_a_square_of_the_normaliser_of_each_target():
    logits, targets = torch.randn(2, 5, 7, requires_grad=True), torch.randint(0, 7, (2, 5))
    targets[0, 3:] = -100
    plain, nats = objective(logits, targets)
    assert plain.item() == pytest.approx(nats.item()) == pytest.approx(token_losses(logits, targets).sum().item())
    total, same = objective(logits, targets, 0.5)
    log_z = logits.exp().sum(-1).log().square()[targets != -100].sum()
    assert (total - plain).item() == pytest.approx(0.5 * log_z.item(), rel=1e-5) and same.item() == nats.item()
    total.backward()
    assert not logits.grad[0, 3:].any() and logits.grad[0, :3].any()


def narrow_or_wide(width: int, settings: Optimisation) -> tuple[Transformer, torch.optim.Optimizer]:
    heads = width // 16
    model = Transformer(model_config("tiny", vocab_size=32, context=32, n_layers=2, n_heads=heads, n_kv_heads=heads,
                                     width=width, hidden=2 * width)).initialise(0)
    if settings.parametrisation == "mup":
        rescale(model, settings.base_width)
    return model, optimizer(model, settings)


def changes(width: int, settings: Optimisation) -> list[float]:
    """How much three steps change each block's output and the logits, root mean square: a coordinate check."""
    model, steps = narrow_or_wide(width, settings)
    set_rate(steps.param_groups, settings.learning_rate)
    tokens = torch.randint(0, 32, (4, 16), generator=torch.Generator().manual_seed(1))
    seen: dict[int, torch.Tensor] = {}
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda module, inputs, out, number=number: seen.update({number: out.detach()}))

    def outputs() -> list[torch.Tensor]:
        logits = model(tokens)
        objective(logits, tokens.roll(-1, 1))[0].div(64).backward()
        return [*(seen[number] for number in sorted(seen)), logits.detach()]

    before = outputs()
    for _ in range(3):
        steps.step()
        steps.zero_grad()
        after = outputs()
    return [float((a - b).square().mean().sqrt()) for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_under_mup_steps_change_wide_models_as_much_as_narrow_ones(kind):
    mup = Optimisation(optimizer=kind, parametrisation="mup", base_width=32, learning_rate=0.03, weight_decay=0)
    plain = mup.model_copy(update={"parametrisation": "standard"})
    narrow, wide = changes(32, mup), changes(256, mup)
    assert narrow == changes(32, plain)                 # at base_width there is no difference
    assert all(0.5 < b / a < 2 for a, b in zip(narrow, wide, strict=True)), (narrow, wide)
    assert changes(256, plain)[1] > 5 * narrow[1]


def test_under_mup_the_learning_rate_of_a_narrow_model_suits_a_wide_one():
    """Text of a Markov chain; standard: what is best for width 32 is too much for width 256."""
    table = torch.softmax(2.5 * torch.randn(32, 32, generator=torch.Generator().manual_seed(5)), -1)
    generator, text = torch.Generator().manual_seed(0), torch.randint(0, 32, (8 * 20, 1))
    for _ in range(24):
        text = torch.cat([text, torch.multinomial(table[text[:, -1]], 1, generator=generator)], 1)

    def loss(width: int, parametrisation: str, rate: float) -> float:
        model, steps = narrow_or_wide(width, Optimisation(parametrisation=parametrisation, base_width=32,
                                                          weight_decay=0))
        losses = []
        for step, batch in enumerate(text.split(8), 1):
            set_rate(steps.param_groups, rate * min(1, step / 4))
            mean = objective(model(batch[:, :-1]), batch[:, 1:])[0] / (8 * 24)
            mean.backward()
            steps.step()
            steps.zero_grad()
            losses.append(float(mean.detach()))
        return float(np.mean(losses[-5:]))

    low, high = 2.0**-9, 2.0**-5
    assert loss(32, "standard", high) < loss(32, "standard", low)
    assert loss(256, "standard", high) > loss(256, "standard", low)
    assert loss(256, "mup", high) < loss(256, "mup", low)
