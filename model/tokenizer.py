"""Reads a version folder's tokenizer: tiktoken ranks and the JSON beside them."""

import base64
import binascii
import json
from dataclasses import dataclass
from hashlib import sha256

import fsspec
import tiktoken

from tasks.errors import UserError

RANKS, DESCRIPTION = "ranks.tiktoken", "tokenizer.json"


@dataclass(frozen=True)
class Tokenizer:
    name: str
    encoding: tiktoken.Encoding
    eot: int                            # id of the end-of-text token
    special: dict[str, int]
    n_vocab: int
    digest: str                         # sha256 over both files: equal exactly when the tokenizers are

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text: the spelling of a special token in the text is text."""
        return self.encoding.encode_ordinary(text)

    def decode(self, tokens: list[int]) -> str:
        return self.encoding.decode([token for token in tokens if token not in self.special.values()])

    def token(self, name: str) -> int:
        """Id of a special token; UserError when the tokenizer has none of that name."""
        if name not in self.special:
            raise UserError(f"tokenizer {self.name!r} has no special token {name}: it has "
                            f"{', '.join(sorted(self.special))}; train one with `gristmill train-tokenizer`")
        return self.special[name]


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer in `folder` (any fsspec URI). UserError when a file is missing or does not read as one."""
    folder = str(folder).rstrip("/")
    contents = {}
    for name in (RANKS, DESCRIPTION):
        try:
            with fsspec.open(f"{folder}/{name}", "rb") as file:
                contents[name] = file.read()
        except FileNotFoundError:
            raise UserError(f"{folder}/{name}: no such file; a tokenizer is a folder with {RANKS} and "
                            f"{DESCRIPTION}") from None
    try:
        about = json.loads(contents[DESCRIPTION])
        # not tiktoken's own loader: that caches by path in a temporary folder and would serve a stale file
        ranks = {base64.b64decode(token): int(rank)
                 for token, rank in (line.split() for line in contents[RANKS].splitlines() if line)}
        encoding = tiktoken.Encoding(about["name"], pat_str=about["pattern"], mergeable_ranks=ranks,
                                     special_tokens=about["special_tokens"])
        return Tokenizer(about["name"], encoding, int(about["eot"]), dict(about["special_tokens"]),
                         max(int(about["n_vocab"]), encoding.max_token_value + 1),
                         sha256(contents[RANKS] + b"\0" + contents[DESCRIPTION]).hexdigest())
    except (KeyError, ValueError, binascii.Error) as error:
        raise UserError(f"{folder}: not a tokenizer ({type(error).__name__}: {error}): publish the corpus again or "
                        "copy the folder anew") from None
