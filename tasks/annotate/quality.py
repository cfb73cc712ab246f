"""Quality as a classifier sees it: one column, the probability that a document is like the classifier's positives.

`gristmill train-classifier` makes such classifiers; any fastText model of two labels serves, DCLM's among them
(https://huggingface.co/mlfoundations/fasttext-oh-eli5). What a score is worth is said by its rank among random crawl,
not by its size: DCLM keeps the best tenth (Li et al. 2024, https://arxiv.org/abs/2406.11794, section 4.4).
"""

import json
import math
import os

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.classifier.model import POSITIVE, Text, load, logits, probabilities
from tasks.errors import UserError
from tasks.storage import Place

DESCRIPTION = "classifier.json"


class Quality(BaseModel):
    """The classifier of quality; without one the signal is NULL.

    `classifier` names a folder that `gristmill train-classifier` wrote, and stands for the other settings, which are
    read from its classifier.json when settings are composed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Place | None = Field(None, description="A fastText model of two labels, a path or URI.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="The sha256 of that file; required "
                                                                              "with it.")
    label: str = Field(POSITIVE, description="The label whose probability is the score.")
    text: Text = Field("words", description="What the model sees: words (as train-classifier does) or raw (DCLM).")

    @model_validator(mode="before")
    @classmethod
    def _described(cls, given):
        if not isinstance(given, dict) or "classifier" not in given:
            return given
        given = dict(given)
        folder = given.pop("classifier")
        if given.get("model") or given.get("sha256"):
            raise UserError("annotate.quality.classifier stands for annotate.quality.model and sha256; give one or the "
                            "other")
        if folder is None:
            return given
        about = description(str(folder))
        return {"model": f"{str(folder).rstrip('/')}/model.bin", "sha256": about["sha256"], "label": about["label"],
                "text": about["text"]} | given

    @model_validator(mode="after")
    def _pinned(self):
        if (self.model is None) != (self.sha256 is None):
            raise UserError("annotate.quality.model and annotate.quality.sha256 go together; set both, or "
                            "annotate.quality.classifier to a folder that train-classifier wrote, or neither")
        return self


def description(folder: str) -> dict:
    """What a classifier's folder says of it: its classifier.json. Raises UserError when there is none."""
    import fsspec

    try:
        with fsspec.open(f"{folder.rstrip('/')}/{DESCRIPTION}", "rb") as file:
            about = json.load(file)
        if all(isinstance(about[key], str) for key in ("sha256", "label", "text")) and about["keep"]:
            return about
    except (OSError, ValueError, KeyError, TypeError, ImportError):
        pass
    raise UserError(f"{folder} holds no classifier; annotate.quality.classifier names a folder with a model.bin and a "
                    f"{DESCRIPTION} that `gristmill train-classifier` wrote") from None


def threshold(folder: str, keep: float) -> float:
    """The score above which `keep` (a share from 0 to 1) of random crawl lies, as classifier.json has it.

    Between two shares of its table it is the line that joins them. Raises UserError for a share outside the table.
    """
    table = sorted((entry["keep"], entry["threshold"]) for entry in description(folder)["keep"])
    shares = [share for share, _ in table]
    if not (isinstance(keep, (int, float)) and math.isfinite(keep) and shares[0] <= keep <= shares[-1]):
        raise UserError(f"the classifier's table goes from the best {shares[0]:g} to the best {shares[-1]:g} of random "
                        f"crawl; keep={keep} is outside")
    return float(np.interp(keep, shares, [score for _, score in table]))


def quality_scores(texts: pa.Array, settings: Quality) -> pa.Array:
    """The score of each text, float64 from 0 to 1; all NULL without a model; 0 for a text without words.

    `texts` is a large_string array without nulls. Raises UserError when the model is missing, another than the settings
    pin, or not one of two labels.
    """
    if settings.model is None:
        return pa.nulls(len(texts), pa.float64())
    model = load(local(settings.model, settings.sha256), settings.sha256, settings.label, settings.text)
    return pa.array(probabilities(logits(model, texts)))


def local(uri: str, sha256: str) -> str:
    """A path of the model on this disk: its own, or that of a copy that is fetched once and checked."""
    from tasks.annotate.fasttext_model import local_copy

    if "://" not in uri or uri.startswith("file://"):
        return os.path.abspath(uri.removeprefix("file://"))
    try:
        return local_copy(uri, sha256)
    except UserError as error:
        raise UserError(str(error).replace("language.model_sha256", "annotate.quality.sha256")
                        .replace("language.model", "annotate.quality.model")
                        .replace(" to use the model that comes with gristmill", "")) from None
