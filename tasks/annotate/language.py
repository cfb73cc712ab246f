"""The language of a document, how sure that is, and whether parts of it are in another one.

By default the model that comes with gristmill tells it (`tasks.annotate.embedded`: nothing is downloaded). CLAIMED are
the languages that it is measured on; it gives other codes too, without a promise. Settings may name a fastText model
instead: lid.176 (Joulin et al. 2016, https://arxiv.org/abs/1607.01759), GlotLID (Kargaran et al. 2023,
https://arxiv.org/abs/2310.16248) or any supervised one whose labels are languages.

Either reads at most `max_chars` characters of a text, in passages spread over it (`tasks.annotate.passages`), so the
cost does not grow with the document. Passages that are surely in another language than the whole make up
`other_language_fraction`, in which the commonest language is `second_language`.

Scores are probabilities from 0 to 1. The embedded model's are calibrated: of documents with a score of 0.8, in a
claimed language, eight in ten are in that language. fastText's are its softmax, as published thresholds expect them;
GlotLID's need a threshold for each language, as FineWeb-2 has them (`filter.language_score.min={default: 0.65, ...}`).
"""

import re

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.annotate.labels import UNDETERMINED, code
from tasks.annotate.passages import passages
from tasks.errors import UserError
from tasks.storage import Place

__all__ = ["CLAIMED", "UNDETERMINED", "Language", "code", "identify"]

# Of these, some pairs cannot be told apart reliably from a sentence: bs and hr, id and ms, nn and no ("no" is Bokmål),
# and sr in Latin script is taken for hr or bs.
CLAIMED = frozenset("""af ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fr ga gu he hi hr hu hy id is it ja
ka kk ko la lg lt lv mi mk mn mr ms nl nn no pa pl pt ro ru sk sl sn so sq sr st sv sw ta te th tl tn tr ts uk ur vi xh
yo zh zu""".split())

_LETTER = re.compile(r"[^\W\d_]")
_AT_ONCE = 1000              # documents classified together: bounds the memory for passages' likelihoods


class Language(BaseModel):
    """How languages are identified."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Place | None = Field(None, description="A fastText model (lid.176.bin, GlotLID ...), a path or URI, fetched "
                                                "once; by default the model that comes with gristmill.")
    model_sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$",
                                     description="The sha256 of that file, 64 hexadecimal digits; required with it.")
    max_chars: int = Field(960, ge=50, le=100_000, description="The characters of a text that the model sees.")

    @model_validator(mode="after")
    def _pinned(self):
        if (self.model is None) != (self.model_sha256 is None):
            raise UserError("language.model and language.model_sha256 go together; "
                            "set both, or neither for the model that comes with gristmill")
        return self


def identify(texts: pa.Array, worth: np.ndarray, settings: Language) -> pa.Table:
    """The columns language (string), language_score, other_language_fraction (float64) and second_language (string,
    null where there is none) of `texts`; ("und", 0, 0, null) where `worth` (bool, one a text) is false, and where no
    letter is among what the model would read.

    Raises UserError when the model is missing, unreadable, or not the one that the settings pin.
    """
    if settings.model:
        from tasks.annotate import fasttext_model

        model = fasttext_model.load(settings.model, settings.model_sha256)

        def classify(documents):
            return fasttext_model.classify(model, documents)
    else:
        from tasks.annotate.embedded import classify
    codes, seconds = [UNDETERMINED] * len(texts), [None] * len(texts)
    scores, fractions = np.zeros(len(texts)), np.zeros(len(texts))
    rows = np.flatnonzero(worth)
    for begin in range(0, len(rows), _AT_ONCE):
        documents = {int(row): found for row in rows[begin:begin + _AT_ONCE]
                     if any(map(_LETTER.search, found := passages(texts[int(row)].as_py(), settings.max_chars)))}
        for row, language, score, fraction, second in zip(documents, *classify(list(documents.values())), strict=True):
            codes[row], scores[row], fractions[row], seconds[row] = language, score, fraction, second
    # Four decimals: the last bits of an exponential are the processor's.
    return pa.table({"language": pa.array(codes, pa.string()), "language_score": scores.round(4),
                     "other_language_fraction": fractions.round(4), "second_language": pa.array(seconds, pa.string())})
