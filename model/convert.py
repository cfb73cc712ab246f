"""Weights in and out: GPT-2 from transformers, and safetensors files. Nothing here unpickles."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.config import ModelConfig
from model.transformer import Transformer
from tasks.errors import UserError


def gpt2_config(theirs) -> ModelConfig:
    """Our configuration for a transformers GPT2Config."""
    return ModelConfig(vocab_size=theirs.vocab_size, context=theirs.n_positions, n_layers=theirs.n_layer,
                       n_heads=theirs.n_head, n_kv_heads=theirs.n_head, width=theirs.n_embd,
                       hidden=theirs.n_inner or 4 * theirs.n_embd, norm="layer", norm_eps=theirs.layer_norm_epsilon,
                       mlp="gelu", position="learned", tied=True, bias=True)


# ours -> theirs; their Conv1D keeps matrices transposed
GPT2_NAMES = {"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj",
              "mlp_norm": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}


def from_gpt2(state: dict[str, torch.Tensor], config: ModelConfig) -> Transformer:
    """The model with the weights of a transformers GPT2LMHeadModel state dict (or of its bare GPT2Model)."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    ours = {"embedding.weight": state["wte.weight"], "position.weight": state["wpe.weight"],
            "norm.weight": state["ln_f.weight"], "norm.bias": state["ln_f.bias"]}
    for layer in range(config.n_layers):
        for mine, theirs in GPT2_NAMES.items():
            for part in ("weight", "bias"):
                tensor = state[f"h.{layer}.{theirs}.{part}"]
                ours[f"blocks.{layer}.{mine}.{part}"] = tensor.t().contiguous() if tensor.dim() == 2 else tensor
    model = Transformer(config)
    model.load_state_dict(ours)
    return model


def save_weights(path: str | Path, weights: dict[str, torch.Tensor], config: ModelConfig) -> None:
    """One safetensors file with the configuration in its header: the same bytes for the same weights.

    One entry of metadata alone: safetensors writes several in the order of a hash table, which differs by process.
    """
    save_file({name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}, str(path),
              metadata={"gristmill_config": json.dumps(dataclasses.asdict(config), sort_keys=True)})


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. UserError for anything else: a pickle can run code when it is read."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; name the model.safetensors of a checkpoint")
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: weights are read from .safetensors alone, since a pickle (.pt, .bin, .ckpt) can "
                        "run code when it is opened: convert it with safetensors.torch.save_file where it is trusted")
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}): fetch or export it again") from None


def load_model(path: str | Path, config: ModelConfig) -> Transformer:
    """A model with the weights of a safetensors file; UserError when they have other shapes than `config` says."""
    weights, model = load_weights(path), Transformer(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise UserError(f"{path}: tensor {name} has shape {found.get(name, 'none')} where the model settings give "
                        f"{expected.get(name, 'none')}: use the settings that the weights were trained with")
    model.load_state_dict(weights)
    return model
