"""Weights in and out: our safetensors, and the folders of Hugging Face's transformers. Nothing here unpickles."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model import hf_tokenizer
from model.config import ModelConfig
from model.families import FAMILIES, Family, family_of, read_folder, write_config
from model.hub import weights_files
from model.tokenizer import Tokenizer
from model.transformer import Transformer
from tasks.errors import UserError

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


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
    return holding(load_weights(path), config, path)


def holding(weights: dict[str, torch.Tensor], config: ModelConfig, path: str | Path) -> Transformer:
    """A model made of these weights, in fp32, which come from `path`: none are made at random before."""
    with torch.device("meta"):
        model = Transformer(config)
    _same_shapes(weights, model, path)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model


def initial_model(path: str | Path, config: ModelConfig) -> Transformer:
    """What a training starts from: our weights file, or the folder of a transformers model. Rows that the embedding
    has beyond theirs are filled (see `grow`)."""
    folder = Path(path).is_dir()
    return holding(grow(load_pretrained(path)[1], config.vocab_size) if folder else load_weights(path), config, path)


def _same_shapes(weights: dict[str, torch.Tensor], model: Transformer, path: str | Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != found:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise UserError(f"{path}: tensor {name} has shape {found.get(name, 'none')} where the model settings give "
                        f"{expected.get(name, 'none')}: use the settings that the weights were trained with")


def grow(weights: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """The weights with the embedding (and an output apart from it) of `rows` rows at least.

    A new row is the mean of the others: the logits of the known tokens stay, and a new one starts out no likelier
    than an average one (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    grown = dict(weights)
    for name in ("embedding.weight", "head.weight", "output_bias"):
        if name in grown and len(grown[name]) < rows:
            old = grown[name]
            grown[name] = torch.cat([old, old.mean(0, keepdim=True).expand(rows - len(old), *old.shape[1:])])
    return grown


def layout(config: ModelConfig, family: Family) -> Iterator[tuple[str, list[str], bool]]:
    """(our tensor, their tensors, whether theirs are transposed) for all tensors of a model."""
    with torch.device("meta"):
        tensors = Transformer(config).state_dict()
    for ours, tensor in tensors.items():
        module, _, part = ours.rpartition(".")
        module, suffix = (module, f".{part}") if module else (ours, "")        # output_bias stands alone
        words = module.split(".")
        layer = words[1] if words[0] == "blocks" else ""
        theirs = family.names[".".join([words[0], "{}", *words[2:]]) if layer else module]
        each = [theirs] if isinstance(theirs, str) else theirs
        transposed = family.transposed and tensor.dim() == 2 and words[0] == "blocks"
        yield ours, [name.replace("{}", layer) + suffix for name in each], transposed


def to_theirs(weights: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Our weights under the names that transformers gives them; UserError when it has no such model."""
    found = {}
    sizes = [config.n_heads * config.head_width, *2 * [config.n_kv_heads * config.head_width]]
    for ours, theirs, transposed in layout(config, FAMILIES[family_of(config)]):
        tensor = weights[ours].detach()
        parts = tensor.split(sizes) if len(theirs) == 3 else [tensor.t() if transposed else tensor]
        found |= {name: part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return found


def from_theirs(weights: dict[str, torch.Tensor], config: ModelConfig, family: str,
                where: str = "the weights") -> dict[str, torch.Tensor]:
    """Our weights, fp32, of a transformers state dict with or without the prefix of the whole model.

    UserError, naming `where`, for a tensor that is missing or that this model would leave out.
    """
    about = FAMILIES[family]
    weights = {name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): tensor
               for name, tensor in weights.items()}
    left, ours = set(weights), {}
    for mine, theirs, transposed in layout(config, about):
        names = [name if name in weights else name.removeprefix(about.prefix) for name in theirs]
        missing = [name for name in names if name not in weights]
        if missing:
            raise UserError(f"{where}: no tensor {missing[0]}; a {about.architecture} is needed, with its head")
        left -= set(names)
        parts = [weights[name].float() for name in names]
        ours[mine] = (torch.cat(parts) if len(parts) > 1 else parts[0].t() if transposed else parts[0]).contiguous()
    left = {name for name in left if not any(part in name for part in about.ignored)}
    unknown = sorted(left - (set(about.tied) if config.tied else set()) - {"cls.predictions.decoder.bias"})
    if unknown:
        raise UserError(f"{where}: tensor {unknown[0]} has no place in this model: it computes something else")
    return ours


def load_pretrained(folder: str | Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of a transformers folder (config.json and safetensors, in one file or several)."""
    config, family = read_folder(folder)
    files = weights_files(Path(folder))
    if not files:
        raise UserError(f"{folder}: holds no .safetensors; a pickle (pytorch_model.bin) can run code when it is "
                        "opened and is not read: save the model with safe_serialization=True")
    weights = {}
    for path in files:
        weights |= load_weights(path)
    return config, from_theirs(weights, config, family, str(folder))


def save_pretrained(folder: str | Path, weights: dict[str, torch.Tensor], config: ModelConfig, tokenizer: Tokenizer,
                    kind: str = "pretrain", dtype: str = "f32") -> None:
    """Writes the folder that transformers' AutoModel and AutoTokenizer read.

    A file that a folder of the same model has is written to the same bytes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about = write_config(config, tokenizer.eot, str(DTYPES[dtype]).removeprefix("torch."), tokenizer.bos)
    ends = [tokenizer.eot] + [tokenizer.special[name] for name in ("<|end|>",) if name in tokenizer.special]
    mask = None if config.causal else tokenizer.n_vocab
    files = hf_tokenizer.to_files(tokenizer.encoding, config.context, mask, kind == "finetune")
    files |= {"config.json": about}
    if config.causal:
        files["generation_config.json"] = {"bos_token_id": tokenizer.bos, "eos_token_id": ends}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    theirs = {name: tensor.to(DTYPES[dtype]).cpu().clone() for name, tensor in to_theirs(weights, config).items()}
    save_file(theirs, str(folder / "model.safetensors"), metadata={"format": "pt"})
