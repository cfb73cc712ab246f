"""Our tokenizers as Hugging Face's tokenizer.json, and such files as ours: byte-level BPE both ways, the same tokens.

tiktoken knows a token by its rank and merges whatever spells a known token, lowest rank first; Hugging Face lists
the pair that makes each token. Importing this module does not import PyTorch.
"""

import itertools
import json
from typing import Any

import tiktoken

from tasks.errors import UserError
from tasks.tokenizer import BOS, EOT, begin, with_specials

MASK = "<|mask|>"

# What `use_regex` of their ByteLevel stands for: GPT-2's pattern.
GPT2_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""

# Instructions as model/finetune lays them out.
CHAT = ("{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def byte_letters() -> list[str]:
    """The visible letter that stands for each byte in GPT-2's vocabulary
    (https://github.com/openai/gpt-2/blob/master/src/encoder.py)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


LETTERS = byte_letters()
BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}


def spelled(token: bytes) -> str:
    return "".join(LETTERS[byte] for byte in token)


def merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The two tokens that make each longer token, by rank: what is left of it when only lower ranks are merged.

    A token of which more than two are left is never made by merging; it is found whole (`ignore_merges`).
    """
    found = []
    for token, rank in sorted(ranks.items(), key=lambda entry: entry[1]):
        parts = [token[i:i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], rank))
            if ranks.get(parts[best] + parts[best + 1], rank) >= rank:
                break
            parts[best:best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def unused(number: int) -> str:
    """What stands in others' vocabularies for a number that no token has."""
    return f"[PAD{number}]"


def specials(encoding: tiktoken.Encoding, mask: int | None) -> dict[str, int]:
    return dict(encoding._special_tokens) | ({MASK: mask} if mask is not None else {})


def to_files(encoding: tiktoken.Encoding, context: int, mask: int | None, chat: bool) -> dict[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json. For a decoder a text begins as in training; `mask` is the token that
    an encoder was trained to fill in.

    The vocabulary has the special tokens too, and a token for each number that is not used (100256 of cl100k_base):
    the loader numbers added tokens that it lacks from its size on, whatever their `id` says.
    """
    ranks = encoding._mergeable_ranks
    added = sorted(specials(encoding, mask).items(), key=lambda entry: entry[1])
    numbered = {rank: spelled(token) for token, rank in ranks.items()} | {number: name for name, number in added}
    start = BOS if BOS in encoding._special_tokens else EOT
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "normalizer": {"type": "NFC"} if getattr(encoding, "nfc", False) else None,
        "added_tokens": [{"id": number, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for name, number in added],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": encoding._pat_str}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": None if mask is not None else {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": start, "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {start: {"id": start, "ids": [begin(encoding)], "tokens": [start]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": {numbered.get(number, unused(number)): number for number in range(max(numbered) + 1)},
                  "merges": [[spelled(a), spelled(b)] for a, b in merges(ranks)]},
    }
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": context, "bos_token": start,
             "eos_token": EOT, "clean_up_tokenization_spaces": False,
             "pad_token": "<|pad|>" if "<|pad|>" in encoding._special_tokens else EOT}
    about |= {"mask_token": MASK} if mask is not None else {}
    about |= {"chat_template": CHAT} if chat else {}
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": about}


def from_file(content: bytes, name: str, where: str) -> tiktoken.Encoding:
    """The encoding of a tokenizer.json that is byte-level BPE. UserError, naming `where`, for any other kind.

    Its end-of-text is its token of that name, or the one that ends Llama 3's and Qwen's texts; ours are added behind.
    The token that it puts before a text, as Llama 3's does, is what texts begin with here too.
    """
    try:
        about = json.loads(content)
        model, pattern = about["model"], _pattern(about.get("pre_tokenizer") or {})
        if model.get("type") != "BPE" or pattern is None or about.get("normalizer") not in (None, {"type": "NFC"}):
            raise ValueError("not byte-level BPE")
        added = {token["content"]: token["id"] for token in about.get("added_tokens", [])}
        ranks = {bytes(BYTES[letter] for letter in token): rank for token, rank in model["vocab"].items()
                 if token not in added and token != unused(rank)}
        start = _first(about.get("post_processor") or {})
        if start is not None and start not in added:
            raise ValueError(f"texts begin with {start}, which is no special token")
        last = -1
        for merge in model["merges"]:
            first, second = merge.split(" ") if isinstance(merge, str) else merge
            made = model["vocab"][first + second]
            if made < last:
                raise ValueError("tokens are not numbered in the order of their merges")
            last = made
        if any(bytes([byte]) not in ranks for byte in range(256)):
            raise ValueError("a byte has no token")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: not a tokenizer that is read here ({error}): weights of GPT-2, Llama 3 and Qwen3 "
                        "can be loaded, which have byte-level BPE, those of bert-base, Llama 2 and Mistral 7B "
                        "cannot; train on a corpus with a tokenizer of its own instead") from None
    added.pop(MASK, None)                               # always the first token behind the others
    if EOT not in added:
        end = next((token for token in ("<|end_of_text|>", "</s>", "<|im_end|>") if token in added), None)
        if end is None:
            raise UserError(f"{where}: has no end-of-text token ({EOT} or <|end_of_text|>)")
        added[EOT] = added.pop(end)
        start = EOT if start == end else start
    if start not in (None, EOT):
        added[BOS] = added.pop(start)
    return with_specials(name, pattern, ranks, added, about.get("normalizer") is not None)


def _first(after: dict[str, Any]) -> str | None:
    """The special token that a post-processor puts before a text; None where it puts none."""
    found = [step for step in after.get("processors", [after]) if step.get("type") == "TemplateProcessing"]
    before = list(itertools.takewhile(lambda piece: "SpecialToken" in piece, found[0]["single"])) if found else []
    if len(before) > 1:
        raise ValueError("texts begin with several special tokens")
    return before[0]["SpecialToken"]["id"] if before else None


def _pattern(pre: dict[str, Any]) -> str | None:
    """The regular expression that splits text before merging; None where it is not one expression and byte-level."""
    steps = pre.get("pretokenizers", [pre])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return GPT2_PATTERN
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True) \
            and not steps[1].get("add_prefix_space") and steps[0].get("behavior") == "Isolated":
        return steps[0]["pattern"].get("Regex")
    return None
