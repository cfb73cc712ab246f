"""How others name what a model is made of: the config.json and the tensors of GPT-2, Llama, Mistral, Qwen3 and BERT as
Hugging Face's transformers stores them.

Importing this module does not import PyTorch.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import BERT, GPT2, LLAMA, QWEN3, ModelConfig
from tasks.errors import UserError


@dataclass(frozen=True)
class Family:
    """`names` takes our modules to theirs; "{}" is the number of a layer. Three names: queries, keys and values."""

    architecture: str
    names: dict[str, str | tuple[str, str, str]]
    prefix: str                         # that a model without its head leaves out
    fixed: dict[str, Any]               # what all of the family have in common
    transposed: bool = False            # matrices are stored (in, out)
    ignored: tuple[str, ...] = ()       # name parts of tensors that no logit depends on
    tied: tuple[str, ...] = field(default=())          # names under which the tied embedding may be stored again


def _split(layer: str, kind: str = "_proj") -> tuple[str, str, str]:
    return tuple(f"{layer}.{name}{kind}" for name in "qkv")


_LLAMA_NAMES: dict[str, Any] = {
    "embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.attention.qkv": _split("model.layers.{}.self_attn"),
    "blocks.{}.attention.out": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.mlp_norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.mlp.gate": "model.layers.{}.mlp.gate_proj", "blocks.{}.mlp.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.mlp.down": "model.layers.{}.mlp.down_proj",
}
_QK_NAMES = {"blocks.{}.attention.query_norm": "model.layers.{}.self_attn.q_norm",
             "blocks.{}.attention.key_norm": "model.layers.{}.self_attn.k_norm"}
_BERT_LAYER = "bert.encoder.layer.{}"
_LLAMA_REST = {"ignored": ("rotary_emb.inv_freq",), "tied": ("lm_head.weight",)}

FAMILIES = {
    "gpt2": Family("GPT2LMHeadModel", {
        "embedding": "transformer.wte", "position": "transformer.wpe", "norm": "transformer.ln_f",
        "blocks.{}.attention_norm": "transformer.h.{}.ln_1", "blocks.{}.attention.qkv": "transformer.h.{}.attn.c_attn",
        "blocks.{}.attention.out": "transformer.h.{}.attn.c_proj", "blocks.{}.mlp_norm": "transformer.h.{}.ln_2",
        "blocks.{}.mlp.up": "transformer.h.{}.mlp.c_fc", "blocks.{}.mlp.down": "transformer.h.{}.mlp.c_proj",
    }, "transformer.", GPT2, True, (".attn.bias", ".attn.masked_bias"), ("lm_head.weight",)),
    "llama": Family("LlamaForCausalLM", _LLAMA_NAMES, "model.", LLAMA, **_LLAMA_REST),
    "mistral": Family("MistralForCausalLM", _LLAMA_NAMES, "model.", LLAMA, **_LLAMA_REST),
    "qwen3": Family("Qwen3ForCausalLM", _LLAMA_NAMES | _QK_NAMES, "model.", QWEN3, **_LLAMA_REST),
    "bert": Family("BertForMaskedLM", {
        "embedding": "bert.embeddings.word_embeddings", "position": "bert.embeddings.position_embeddings",
        "token_type": "bert.embeddings.token_type_embeddings", "embedding_norm": "bert.embeddings.LayerNorm",
        "blocks.{}.attention.qkv": tuple(f"{_BERT_LAYER}.attention.self.{x}" for x in ("query", "key", "value")),
        "blocks.{}.attention.out": f"{_BERT_LAYER}.attention.output.dense",
        "blocks.{}.attention_norm": f"{_BERT_LAYER}.attention.output.LayerNorm",
        "blocks.{}.mlp.up": f"{_BERT_LAYER}.intermediate.dense", "blocks.{}.mlp.down": f"{_BERT_LAYER}.output.dense",
        "blocks.{}.mlp_norm": f"{_BERT_LAYER}.output.LayerNorm", "transform": "cls.predictions.transform.dense",
        "transform_norm": "cls.predictions.transform.LayerNorm", "output_bias": "cls.predictions.bias",
    }, "bert.", BERT, False, ("bert.pooler.", "cls.seq_relationship.", "position_ids"),
        ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")),
}


# what a family's code cannot do otherwise; a choice that it does not name is as in an empty configuration
_CHOICES = ("causal", "norm", "norm_place", "qk_norm", "mlp", "position", "embedding_norm")


def family_of(config: ModelConfig) -> str:
    """The family whose code computes what a model of `config` computes. UserError when none does."""
    plain = ModelConfig()
    for name, family in FAMILIES.items():
        square = config.n_kv_heads == config.n_heads and config.head_width * config.n_heads == config.width
        if (all(getattr(config, key) == family.fixed.get(key, getattr(plain, key)) for key in _CHOICES)
                and bool(config.token_types) == (name == "bert")
                and (config.bias == family.fixed["bias"] or name == "llama")
                and (not config.window or name in ("mistral", "qwen3"))
                and (name not in ("gpt2", "bert") or config.tied and square)):
            return name
    raise UserError("this shape of model is none of gpt2, llama, mistral, qwen3 and bert, so no other program would "
                    "compute what it computes: train one of those shapes (see the presets) to export it")


def read_config(config: dict[str, Any], where: str) -> ModelConfig:
    """Our configuration for the contents of a config.json. UserError, naming `where`, for what is not computed here."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{where}: model_type {family!r} is not known here; there are {', '.join(FAMILIES)}")

    def expect(key: str, *allowed: Any) -> None:
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(f"{where}: {key} {config[key]!r} is not computed here; "
                            f"{family} is read with {allowed[0]!r}")

    if family == "gpt2":
        expect("activation_function", "gelu_new", "gelu_pytorch_tanh")
        expect("tie_word_embeddings", True)
        expect("scale_attn_by_inverse_layer_idx", False)
        expect("scale_attn_weights", True)
        heads, width = config["n_head"], config["n_embd"]
        return ModelConfig(**GPT2 | {
            "vocab_size": config["vocab_size"], "context": config["n_positions"], "n_layers": config["n_layer"],
            "n_heads": heads, "n_kv_heads": heads, "width": width, "hidden": config.get("n_inner") or 4 * width,
            "norm_eps": config.get("layer_norm_epsilon", 1e-5)})
    heads = config["num_attention_heads"]
    shape = {"vocab_size": config["vocab_size"], "context": config["max_position_embeddings"],
             "n_layers": config["num_hidden_layers"], "n_heads": heads, "width": config["hidden_size"],
             "n_kv_heads": config.get("num_key_value_heads") or heads, "hidden": config["intermediate_size"]}
    if family == "bert":
        expect("hidden_act", "gelu")
        expect("position_embedding_type", "absolute")
        expect("is_decoder", False)
        expect("tie_word_embeddings", True)
        return ModelConfig(**BERT | shape | {"token_types": config.get("type_vocab_size", 2),
                                             "norm_eps": config.get("layer_norm_eps", 1e-12)})
    expect("hidden_act", "silu")
    if family == "llama":
        expect("mlp_bias", config.get("attention_bias", False))
        shape["bias"] = config.get("attention_bias", False)
    else:
        expect("attention_bias", False)
    default = 128 if family == "qwen3" else 0
    return ModelConfig(**FAMILIES[family].fixed | shape | _rope(config, family, where) | {
        "window": _window(config, family, where), "head_width": config.get("head_dim") or default,
        "norm_eps": config.get("rms_norm_eps", 1e-6), "tied": config.get("tie_word_embeddings", False)})


def read_folder(folder: str | Path) -> tuple[ModelConfig, str]:
    """Our configuration of a transformers folder, and its family."""
    path = Path(folder) / "config.json"
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read; name a folder that transformers' save_pretrained wrote") from None
    try:
        return read_config(about, str(path)), about["model_type"]
    except KeyError as error:
        raise UserError(f"{path}: has no {error}; export the model again with save_pretrained") from None


def _rope(config: dict[str, Any], family: str, where: str) -> dict[str, Any]:
    """transformers 5 keeps all in rope_parameters; before, theta stood alone and the rest was in rope_scaling."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    found = {"rope_theta": float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))}
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UserError(f"{where}: partial_rotary_factor is not computed here")
    if kind == "default":
        return found
    if kind not in ("linear", "llama3"):
        raise UserError(f"{where}: rope_type {kind!r} is not computed here; there are linear and llama3")
    found |= {"rope_scaling": kind, "rope_factor": float(rope["factor"])}
    if kind == "llama3":
        found |= {"rope_original": rope["original_max_position_embeddings"], "rope_low": rope["low_freq_factor"],
                  "rope_high": rope["high_freq_factor"]}
    return found


def _window(config: dict[str, Any], family: str, where: str) -> int:
    if family == "llama" or not config.get("sliding_window") or not config.get("use_sliding_window", True):
        return 0
    types = set(config.get("layer_types") or ["sliding_attention"])
    if family == "qwen3" and not config.get("layer_types"):
        first = config.get("max_window_layers", 28)
        types = {"sliding_attention" if layer >= first else "full" for layer in range(config["num_hidden_layers"])}
    if len(types) > 1:
        raise UserError(f"{where}: layers with and without a sliding window are not mixed here")
    return config["sliding_window"] if types == {"sliding_attention"} else 0


def write_config(config: ModelConfig, eot: int | None = None, dtype: str = "float32",
                 bos: int | None = None) -> dict[str, Any]:
    """The contents of config.json for a model of `config`; `eot` is the end-of-text token, `bos` what texts begin with.
    """
    family = family_of(config)
    about = {"architectures": [FAMILIES[family].architecture], "model_type": family, "dtype": dtype,
             "torch_dtype": dtype, "vocab_size": config.vocab_size, "initializer_range": config.init_std,
             "tie_word_embeddings": config.tied, "bos_token_id": bos, "eos_token_id": eot}
    if family == "gpt2":
        return about | {
            "n_positions": config.context, "n_layer": config.n_layers, "n_head": config.n_heads,
            "n_embd": config.width, "n_inner": config.hidden, "layer_norm_epsilon": config.norm_eps,
            "activation_function": "gelu_new", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    about |= {"max_position_embeddings": config.context, "num_hidden_layers": config.n_layers,
              "num_attention_heads": config.n_heads, "hidden_size": config.width, "intermediate_size": config.hidden}
    if family == "bert":
        return about | {"type_vocab_size": config.token_types, "layer_norm_eps": config.norm_eps, "hidden_act": "gelu",
                        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": eot}
    rope = {"rope_type": "default"} if config.rope_scaling == "none" else {
        "rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        rope |= {"original_max_position_embeddings": config.rope_original, "low_freq_factor": config.rope_low,
                 "high_freq_factor": config.rope_high}
    about |= {"num_key_value_heads": config.n_kv_heads, "head_dim": config.head_width, "rms_norm_eps": config.norm_eps,
              "hidden_act": "silu", "rope_theta": config.rope_theta, "attention_bias": config.bias,
              "rope_parameters": rope | {"rope_theta": config.rope_theta},
              "rope_scaling": rope if config.rope_scaling != "none" else None}         # transformers 4 reads this one
    if family == "llama":
        about["mlp_bias"] = config.bias
    if family != "llama":
        about["sliding_window"] = config.window or None
    if family == "qwen3":
        about |= {"use_sliding_window": bool(config.window), "max_window_layers": 0,
                  "layer_types": ["sliding_attention" if config.window else "full_attention"] * config.n_layers}
    return about
