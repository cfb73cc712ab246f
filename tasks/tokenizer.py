"""Tokenizers: byte-level BPE in tiktoken's form, trained here or one of tiktoken's named encodings.

A tokenizer is two files: `ranks.tiktoken` (a line for each token: base64, space, rank) and `tokenizer.json` (name,
pattern, special tokens). Both are written byte for byte the same for the same tokenizer, so their sha256 names it.
"""

import binascii
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

import fsspec
import tiktoken

from tasks.errors import UserError
from tasks.storage import Root

RANKS, DESCRIPTION = "ranks.tiktoken", "tokenizer.json"
EOT = "<|endoftext|>"
BOS = "<|begin_of_text|>"               # what texts begin with where a tokenizer has it, as Llama 3's; else EOT
SPECIALS = (EOT, "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")

# How GPT-4 splits text before merging (tiktoken's cl100k_base, with the end-of-text branch left out).
PATTERN = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|"
           r"\s+(?!\S)|\s+")

# A run of a million blanks makes tiktoken's regular expressions overflow their stack and the process panic, and one
# of ten million letters takes ten seconds to merge. Llama 3 cuts runs at the same length, for the same reason
# (https://github.com/meta-llama/llama3/blob/main/llama/tokenizer.py, MAX_NO_WHITESPACES_CHARS).
MAX_RUN = 25_000
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{MAX_RUN + 1}}}|(?<!\s)\s{{{MAX_RUN + 1}}}")
_RUN = re.compile(r"\S+|\s+")


class Encoding(tiktoken.Encoding):
    """A tokenizer. With `nfc` it reads text in Unicode's form NFC, as Qwen's does; ours are trained on such text."""

    nfc = False


def begin(encoding: tiktoken.Encoding) -> int:
    """The token that texts begin with."""
    return encoding._special_tokens.get(BOS, encoding.eot_token)


def pieces(text: str) -> Iterator[str]:
    """`text` in parts to encode one by one: whole, unless it has a run of more than MAX_RUN code points of white
    space, or without any; such a run is cut every MAX_RUN code points from its start. Joined they are the text."""
    if len(text) <= MAX_RUN:
        yield text
        return
    at = end = 0
    while run := _LONG_RUN.search(text, end):
        end = _RUN.match(text, run.start()).end()
        for cut in range(run.start() + MAX_RUN, end, MAX_RUN):
            yield text[at:cut]
            at = cut
    yield text[at:]


def encode(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """Token ids of plain text; the spelling of a special token in it is text. Decoding gives the text back exactly, or
    where the tokenizer reads NFC, its NFC."""
    tokens: list[int] = []
    if getattr(encoding, "nfc", False):
        text = unicodedata.normalize("NFC", text)
    for piece in pieces(text):
        tokens += encoding.encode_ordinary(piece)
    return tokens


def train(texts: Iterable[str], vocab_size: int, pattern: str = PATTERN, name: str = "trained") -> tiktoken.Encoding:
    """A byte-level BPE (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909) of `vocab_size` tokens in all, the
    special ones included; fewer when the texts have no more pairs to merge.

    A function of the texts alone: neither their order, nor threads, nor hash seeds matter (ties between pairs go to
    the lower token ids). Raises UserError when vocab_size has no room for the 256 bytes and the special tokens.
    """
    import rustbpe

    if vocab_size < 256 + len(SPECIALS):
        raise UserError(f"tokenize.vocab_size is {vocab_size}; it must be at least {256 + len(SPECIALS)}: "
                        f"256 bytes and {len(SPECIALS)} special tokens")
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator((piece for text in texts for piece in pieces(text)), vocab_size - len(SPECIALS),
                                pattern=pattern)
    learned = sorted((rank, bytes(token)) for token, rank in trainer.get_mergeable_ranks())
    # two merges may spell the same bytes; tiktoken knows tokens by their bytes, so the first stands for both
    ranks = {token: rank for rank, token in enumerate(dict.fromkeys(token for _, token in learned))}
    return with_specials(name, pattern, ranks, {})


def named(name: str) -> tiktoken.Encoding:
    """One of tiktoken's encodings (gpt2, cl100k_base, o200k_base ...), with the special tokens it lacks appended.

    Raises UserError for a name tiktoken does not know, and when its files are neither in the cache nor to be fetched.
    """
    known = tiktoken.list_encoding_names()
    if name not in known:
        near = get_close_matches(name, [*known, "trained"], 1)
        raise UserError(f"tokenize.tokenizer {name!r} is no tokenizer: use \"trained\", a folder with {RANKS}, or one "
                        f"of {', '.join(sorted(known))}" + (f"; the nearest is {near[0]!r}" if near else ""))
    try:
        encoding = tiktoken.get_encoding(name)
    except Exception as error:  # requests, OS and hash errors alike: without the file there is no encoding
        raise UserError(f"tiktoken cannot get the files of the encoding {name} ({type(error).__name__}): connect to "
                        "the network once, or set TIKTOKEN_CACHE_DIR to a folder that holds them under the SHA-1 of "
                        "their URLs, or use tokenize.tokenizer \"trained\"") from None
    return with_specials(name, encoding._pat_str, encoding._mergeable_ranks, encoding._special_tokens)


def with_specials(name: str, pattern: str, ranks: dict[bytes, int], specials: dict[str, int],
                  nfc: bool = False) -> tiktoken.Encoding:
    """The encoding of ranks and special tokens, with those of SPECIALS that it lacks numbered behind the last."""
    following = max(max(ranks.values()), *specials.values(), 0) + 1
    missing = [special for special in SPECIALS if special not in specials]
    specials = specials | {special: following + i for i, special in enumerate(missing)}
    encoding = Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials)
    encoding.nfc = nfc
    return encoding


def to_files(encoding: tiktoken.Encoding) -> dict[str, bytes]:
    """The two files of a tokenizer, by name."""
    ranks = sorted(encoding._mergeable_ranks.items(), key=lambda entry: entry[1])
    about = {"name": encoding.name, "kind": "tiktoken", "pattern": encoding._pat_str,
             "encoding": encoding.name if encoding.name in tiktoken.list_encoding_names() else None,
             "special_tokens": encoding._special_tokens, "n_vocab": encoding.n_vocab, "eot": encoding.eot_token}
    about |= {"normalizer": "NFC"} if getattr(encoding, "nfc", False) else {}
    return {RANKS: b"".join(b"%s %d\n" % (binascii.b2a_base64(token, newline=False), rank) for token, rank in ranks),
            DESCRIPTION: (json.dumps(about, sort_keys=True, indent=1) + "\n").encode()}


def from_files(files: Mapping[str, bytes], where: str = "the tokenizer") -> tiktoken.Encoding:
    """The encoding of two files' contents. Raises UserError, naming `where`, when they do not hold one."""
    try:
        about = json.loads(files[DESCRIPTION])
        # not tiktoken's own loader: that caches by path in a temporary folder and would serve a stale file
        lines = (line.split() for line in files[RANKS].splitlines() if line)
        ranks = {binascii.a2b_base64(token, strict_mode=True): int(rank) for token, rank in lines}
        if any(bytes([b]) not in ranks for b in range(256)):
            raise ValueError("a byte has no token")
        encoding = Encoding(about["name"], pat_str=about["pattern"], mergeable_ranks=ranks,
                            special_tokens=about["special_tokens"])
        encoding.nfc = about.get("normalizer") == "NFC"
        if about["n_vocab"] != encoding.n_vocab or about["eot"] != about["special_tokens"][EOT]:
            raise ValueError("n_vocab or eot disagree with the tokens")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} does not hold a tokenizer ({type(error).__name__}): {RANKS} and {DESCRIPTION} must "
                        "be as `gristmill train-tokenizer` writes them; train it again or copy it anew") from None
    return encoding


def read_files(folder: str) -> dict[str, bytes]:
    """The contents of the two files in `folder` (a path or any fsspec URI). Raises UserError when one is missing."""
    files = {}
    for name in (RANKS, DESCRIPTION):
        try:
            with fsspec.open(f"{folder.rstrip('/')}/{name}", "rb") as file:
                files[name] = file.read()
        except (OSError, ValueError):
            raise UserError(f"{folder.rstrip('/')}/{name} cannot be read: a tokenizer is a folder with {RANKS} and "
                            f"{DESCRIPTION}; check tokenize.tokenizer, or train one with the deployment train-tokenizer"
                            ) from None
    return files


def load(folder: str) -> tiktoken.Encoding:
    """The tokenizer in `folder` (a path or any fsspec URI). Raises UserError when there is none."""
    return from_files(read_files(str(folder)), str(folder))


def save(encoding: tiktoken.Encoding, folder: str) -> dict[str, str]:
    """Writes the two files into `folder`, each whole or not at all; returns their sha256 by name."""
    root = Root(str(folder))
    return {name: root.write_bytes(name, data) for name, data in to_files(encoding).items()}
