"""Where pretrained weights come from: a folder, or a model on Hugging Face's hub at one commit.

Importing this module does not import PyTorch.
"""

import json
import re
from hashlib import file_digest, sha256
from pathlib import Path

from tasks.errors import UserError

FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json"]
OTHERS = ["consolidated*", "*/*"]                       # the same weights in their maker's own form


def locate(source: str, cache: str | Path) -> Path:
    """The folder of a transformers model: `source` itself, or OWNER/NAME@COMMIT fetched into `cache`.

    A commit names its files by their hashes, so the same weights come each time; those of safetensors files are
    compared with what the hub says of that commit. What is there already whole is used without asking the hub.
    UserError for anything else, and where it cannot be fetched.
    """
    if Path(source).is_dir():
        return Path(source).resolve()
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([0-9a-f]{40}))?", source)
    if not found:
        raise UserError(f"{source}: no such folder; name one that transformers' save_pretrained wrote, or a model on "
                        "Hugging Face's hub as OWNER/NAME@COMMIT")
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise UserError("models are fetched through the package huggingface_hub: pip install 'gristmill[hub]'"
                        ) from None
    name, commit = found.groups()
    if commit and (folder := _fetched(name, commit, cache)):
        return folder
    try:
        about = HfApi().model_info(name, revision=commit, files_metadata=True)
    except Exception as error:  # requests, OS and the hub's own errors alike: without an answer there is no model
        raise UserError(f"{source}: no such folder, and the hub does not give it ({type(error).__name__}): check the "
                        "name and the connection") from None
    if commit is None:
        raise UserError(f"{source}: name the commit too, so that the same weights come each time; the newest is "
                        f"{name}@{about.sha}")
    if not any(file.rfilename.endswith(".safetensors") for file in about.siblings):
        raise UserError(f"{source}: holds no safetensors; a pickle can run code when it is opened and is not read")
    try:
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=FILES, ignore_patterns=OTHERS,
                                        cache_dir=str(cache)))
    except Exception as error:
        raise UserError(f"{source}: could not be fetched ({type(error).__name__}): check the connection and the space "
                        f"in {cache}, and run the same again") from None
    for file in about.siblings:
        path, expected = folder / file.rfilename, getattr(file.lfs, "sha256", None)
        if expected and path.is_file() and sha256_of(path) != expected:
            raise UserError(f"{path}: sha256 is not that of {source}: remove it and run the same again")
    return folder


def _fetched(name: str, commit: str, cache: str | Path) -> Path | None:
    """The folder that a fetch left in `cache`, if all is there and is what it is called.

    How many files the weights are, the index alone says, which a fetch that was cut off may lack: without it they are
    model.safetensors.
    """
    from huggingface_hub import snapshot_download
    try:
        folder = Path(snapshot_download(name, revision=commit, cache_dir=str(cache), local_files_only=True))
        files = [folder / "config.json", folder / "tokenizer.json", *weights_files(folder)]
    except Exception:                                   # the hub's own errors alike: it is not there
        return None
    known = (folder / "model.safetensors.index.json").is_file() or files[2:] == [folder / "model.safetensors"]
    # the hub's cache calls a file of weights by its sha256
    whole = all(path.is_file() and (len(path.resolve().name) != 64 or path.resolve().name == sha256_of(path))
                for path in files)
    return folder if known and whole and files[2:] else None


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def weights_files(folder: Path) -> list[Path]:
    """The safetensors of a transformers folder: those that its index names, model.safetensors, or all there are."""
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        return [folder / Path(name).name for name in sorted(set(index["weight_map"].values()))]
    except FileNotFoundError:
        one = folder / "model.safetensors"
        return [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{folder / 'model.safetensors.index.json'}: names no weights: fetch or export the model again"
                        ) from None


def weights_digest(folder: Path) -> str:
    """sha256 over the sha256 of the configuration and of each file of weights in `folder`: the model's name."""
    files = [folder / "config.json", *weights_files(folder)]
    if not files[1:] or not files[0].is_file():
        raise UserError(f"{folder}: not a model: a folder with config.json and .safetensors is needed")
    return sha256("".join(sha256_of(path) for path in files).encode()).hexdigest()
