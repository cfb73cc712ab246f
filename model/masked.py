"""Masked-language modelling: what an encoder learns from (BERT, arXiv:1810.04805, section 3.1).

Of the tokens of a row a fraction is chosen to be predicted. Of these 80 % are shown as the mask token, 10 % as a
random token and 10 % as they are, so that the model cannot tell which tokens it will be asked for. The choice is a
pure function of (seed, sample number): each epoch masks anew, as RoBERTa does (arXiv:1907.11692), and which rank
computes a sample does not matter.
"""

from dataclasses import dataclass

import numpy as np

from model.corpus import mix
from model.data import Batch, Samples
from model.tokenizer import Tokenizer


@dataclass
class Masked:
    """Stands in for `samples`, whose rows it masks. How many tokens of a row are targets is known from its length.

    `joins` (n_vocab, 2): whether a token goes on with a word on its left, and on its right; given, whole words are
    chosen together (https://github.com/google-research/bert#whole-word-masking).
    """

    samples: Samples
    mask: int                           # the mask token: the first that the tokenizer does not use
    n_vocab: int
    fraction: float = 0.15
    joins: np.ndarray | None = None

    def __getattr__(self, name: str):
        return getattr(self.samples, name)

    def count(self, n_tokens: int) -> int:
        """Targets in a row of `n_tokens`: one at least."""
        return min(n_tokens, max(1, round(self.fraction * n_tokens)))

    def n_targets(self, samples: range) -> int:
        """How many tokens of `samples` count in the loss, known without reading them."""
        return sum(map(self.count, self.samples.filled(samples).tolist()))

    def batch(self, samples) -> Batch:
        """The samples as arrays: inputs are the tokens themselves, masked, and targets are -100 where not chosen."""
        plain = self.samples.batch(samples)
        real = plain.segments >= 0
        tokens = np.where(real, plain.targets, self.samples.eot)        # the shift to the next token undone
        inputs, targets = tokens.copy(), np.full_like(tokens, -100)
        for row, sample in enumerate(samples):
            n = int(real[row].sum())
            if n == 0:
                continue
            place, show, other = (_hashes(self.samples.seed, sample, n, use) for use in range(3))
            last = tokens[row, :n] == self.samples.eot                  # where a document ends is no riddle
            if self.joins is None:
                chosen = np.lexsort((place, last))[:self.count(n)]
            else:
                chosen = self._words(tokens[row, :n], plain.segments[row, :n], place, last)
            targets[row, chosen] = tokens[row, chosen]
            share = (show[chosen] >> np.uint64(11)) / 2.0**53
            inputs[row, chosen[share < 0.8]] = self.mask
            drawn = chosen[(share >= 0.8) & (share < 0.9)]
            inputs[row, drawn] = other[drawn] % np.uint64(self.n_vocab)
        return Batch(inputs, targets, plain.positions, plain.segments)

    def _words(self, tokens: np.ndarray, segments: np.ndarray, place: np.ndarray, last: np.ndarray) -> np.ndarray:
        """As many tokens as `count` says: whole words in random order that still fit, then a part of one that does
        not, so that the number is known beforehand."""
        joined = self.joins[tokens[1:], 0] & self.joins[tokens[:-1], 1] & (segments[1:] == segments[:-1])
        starts = np.concatenate([[0], np.flatnonzero(~joined) + 1])
        ends = np.append(starts[1:], len(tokens))
        room, chosen, too_long = self.count(len(tokens)), [], []
        for word in np.lexsort((place[starts], last[starts])):
            if room == 0:
                break
            span = np.arange(starts[word], ends[word])
            if len(span) <= room:
                chosen.append(span)
                room -= len(span)
            else:
                too_long.append(span)
        if room:
            chosen.append(too_long[0][:room])
        return np.concatenate(chosen)


def _hashes(seed: int, sample: int, count: int, use: int) -> np.ndarray:
    """`count` random uint64 for one use of one sample."""
    key = mix(mix(mix(np.uint64(seed)) ^ np.uint64(sample)) ^ np.uint64(use))
    return mix(np.arange(count, dtype=np.uint64) ^ key)


def word_joins(tokenizer: Tokenizer) -> np.ndarray:
    """Whether each token goes on with a word on its left and on its right, (n_vocab, 2) bool.

    Words are letters and digits of ASCII and all beyond it. Of Han, kana and Hangul, which are written without
    spaces, each token that begins a character begins a word (lead bytes E3 to ED of UTF-8).
    """

    def inside(byte: int) -> bool:
        return byte >= 0x80 or chr(byte).isalnum()

    joins = np.zeros((tokenizer.n_vocab, 2), bool)
    for token, number in tokenizer.encoding._mergeable_ranks.items():
        joins[number] = inside(token[0]) and not 0xE3 <= token[0] <= 0xED, inside(token[-1])
    return joins
