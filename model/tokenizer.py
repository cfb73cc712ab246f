"""A version folder's tokenizer, as the model uses it."""

from dataclasses import dataclass
from hashlib import sha256

import tiktoken

from tasks import tokenizer
from tasks.errors import UserError


@dataclass(frozen=True)
class Tokenizer:
    name: str
    encoding: tiktoken.Encoding
    eot: int                            # id of the end-of-text token
    special: dict[str, int]
    n_vocab: int
    digest: str                         # sha256 over both files: equal exactly when the tokenizers are

    @property
    def bos(self) -> int:
        """The token that texts begin with: end-of-text, unless the tokenizer has one for that."""
        return tokenizer.begin(self.encoding)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, the same as in the corpus: the spelling of a special token in the text is text."""
        return tokenizer.encode(self.encoding, text)

    def decode(self, tokens: list[int]) -> str:
        return self.encoding.decode([token for token in tokens if token not in self.special.values()])

    def token(self, name: str) -> int:
        """Id of a special token; UserError when the tokenizer has none of that name."""
        if name not in self.special:
            raise UserError(f"tokenizer {self.name!r} has no special token {name}: it has "
                            f"{', '.join(sorted(self.special))}; publish the corpus again, which adds those of chats")
        return self.special[name]


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer in `folder` (any fsspec URI). UserError when a file is missing or does not read as one."""
    files = tokenizer.read_files(str(folder))
    encoding = tokenizer.from_files(files, str(folder))
    digest = sha256(files[tokenizer.RANKS] + b"\0" + files[tokenizer.DESCRIPTION]).hexdigest()
    return Tokenizer(encoding.name, encoding, encoding.eot_token, dict(encoding._special_tokens), encoding.n_vocab,
                     digest)
