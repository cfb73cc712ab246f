"""A model and its tokenizer as one GGUF file, which llama.cpp and what is built on it read.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The names of tensors and the meaning of the
keys are llama.cpp's; its convert_hf_to_gguf.py is the reference for what a family needs.
"""

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from model import hf_tokenizer
from model.config import ModelConfig
from model.families import family_of
from model.tokenizer import Tokenizer
from model.transformer import frequencies
from tasks.errors import UserError
from tasks.tokenizer import PATTERN

# The regular expressions that llama.cpp knows, by the names under which it does. Ours, like Llama 3's, is GPT-4's, and
# splits as it does; cl100k_base itself takes white space at the very end of a text in one piece.
_CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|"
           r"\s*[\r\n]|\s+(?!\S)|\s")
_LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
           r"\s+(?!\S)|\s+")
_R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
PRE_TOKENIZERS = {PATTERN: "llama-bpe", _LLAMA3: "llama-bpe", _CL100K: "llama-bpe", _R50K: "gpt-2",
                  hf_tokenizer.GPT2_PATTERN: "gpt-2", _O200K: "gpt-4o", _LLAMA3.replace("{1,3}", ""): "qwen2"}

NAMES = {"attention_norm": "attn_norm", "attention.out": "attn_output", "mlp_norm": "ffn_norm", "mlp.gate": "ffn_gate",
         "mlp.up": "ffn_up", "mlp.down": "ffn_down", "attention.qkv": "attn_qkv", "attention.query_norm": "attn_q_norm",
         "attention.key_norm": "attn_k_norm", "embedding": "token_embd", "position": "position_embd",
         "norm": "output_norm", "head": "output"}
NORMAL, CONTROL, UNUSED = 1, 3, 5                       # kinds of token

log = logging.getLogger("gristmill.convert")


def write(path: str | Path, weights: dict[str, Tensor], config: ModelConfig, tokenizer: Tokenizer, name: str,
          dtype: str = "f32", chat: bool = False) -> None:
    """Writes a GGUF file, whole or not at all; matrices in `dtype` (f32, f16, bf16), vectors in fp32.

    UserError where llama.cpp has no such model or splits text otherwise, and when the package gguf is not installed;
    a warning where white space at the very end of a text alone is split otherwise.
    """
    family = _check(config, tokenizer)
    try:
        import gguf
    except ImportError:
        raise UserError("GGUF files are written through the package gguf: pip install 'gristmill[gguf]'") from None
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(temporary, family)
    writer.add_name(name)
    writer.add_file_type({"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
                          "bf16": gguf.LlamaFileType.MOSTLY_BF16}[dtype])
    _shape(writer, config, gguf)
    _vocabulary(writer, config, tokenizer, chat)
    kinds = {"f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16}
    for key, tensor in tensors(weights, config).items():
        data = tensor.float().contiguous().numpy()
        if dtype == "f32" or tensor.dim() == 1:
            writer.add_tensor(key, data)
        else:
            writer.add_tensor(key, gguf.quants.quantize(data, kinds[dtype]), raw_dtype=kinds[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(temporary, path)


def _check(config: ModelConfig, tokenizer: Tokenizer) -> str:
    family = family_of(config)
    if not config.causal:
        raise UserError("llama.cpp has encoders for embeddings alone, no output for masked tokens: export it with "
                        "--to huggingface")
    if config.window:
        raise UserError("llama.cpp attends in full in these families, without a sliding window: export the model with "
                        "--to huggingface")
    if config.rope_scaling == "llama3" and family != "llama":
        raise UserError(f"llama.cpp knows rope_scaling llama3 in the architecture llama alone, not {family}: export "
                        "the model with --to huggingface")
    if tokenizer.encoding._pat_str == _CL100K:
        log.warning("llama.cpp splits white space that ends a text and holds a line break otherwise than the tokenizer "
                    "%s: such texts become other tokens there", tokenizer.name)
    if tokenizer.encoding._pat_str not in PRE_TOKENIZERS:
        raise UserError(f"tokenizer {tokenizer.name!r} splits text by a pattern that llama.cpp has no pre-tokenizer "
                        "for, so it would read other tokens: train a tokenizer with the default pattern, or export "
                        "with --to huggingface")
    return family


def tensors(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Our weights under llama.cpp's names, and in its order of rows."""
    family, found = family_of(config), {}
    sizes = [config.n_heads * config.head_width, *2 * [config.n_kv_heads * config.head_width]]
    for ours, tensor in weights.items():
        module, _, part = ours.rpartition(".")
        block, tensor = "", tensor.detach().cpu()
        if module.startswith("blocks."):
            _, layer, module = module.split(".", 2)
            block = f"blk.{layer}."
        if module != "attention.qkv" or family == "gpt2":
            found[f"{block}{NAMES[module]}.{part}"] = tensor
            continue
        query, key, value = tensor.split(sizes)
        if family == "llama":                           # Qwen3 is turned in halves there as here
            query, key = _neighbours(query, config.n_heads), _neighbours(key, config.n_kv_heads)
        found |= {f"{block}attn_q.{part}": query, f"{block}attn_k.{part}": key, f"{block}attn_v.{part}": value}
    if config.rope_scaling == "llama3":
        plain = config.rope_theta ** (-torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width)
        found["rope_freqs.weight"] = plain / frequencies(config)
    return found


def _neighbours(rows: Tensor, heads: int) -> Tensor:
    """Rows of a projection so ordered that the pairs (i, i + D/2) of each head become (2i, 2i + 1)."""
    return rows.view(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _shape(writer, config: ModelConfig, gguf) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.n_heads)
    if config.norm == "layer":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.position == "learned":
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_factor)


def _vocabulary(writer, config: ModelConfig, tokenizer: Tokenizer, chat: bool) -> None:
    ranks, special = tokenizer.encoding._mergeable_ranks, tokenizer.special
    names = {rank: (hf_tokenizer.spelled(token), NORMAL) for token, rank in ranks.items()}
    names |= {number: (token, CONTROL) for token, number in special.items()}
    rows = [names.get(number, (hf_tokenizer.unused(number), UNUSED)) for number in range(config.vocab_size)]
    writer.add_tokenizer_model("gpt2")                  # what byte-level BPE is called there
    writer.add_tokenizer_pre(PRE_TOKENIZERS[tokenizer.encoding._pat_str])
    writer.add_token_list([token for token, _ in rows])
    writer.add_token_types([kind for _, kind in rows])
    writer.add_token_merges([f"{hf_tokenizer.spelled(a)} {hf_tokenizer.spelled(b)}"
                             for a, b in hf_tokenizer.merges(ranks)])
    writer.add_bos_token_id(tokenizer.bos)              # texts begin as in training
    writer.add_add_bos_token(True)
    writer.add_eos_token_id(tokenizer.eot)
    if "<|end|>" in special:
        writer.add_eot_token_id(special["<|end|>"])     # the end of a turn also ends an answer
    if "<|pad|>" in special:
        writer.add_pad_token_id(special["<|pad|>"])
    if chat:
        writer.add_chat_template(hf_tokenizer.CHAT)
