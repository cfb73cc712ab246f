"""Whether a run that is there is the one that is asked for."""

import dataclasses
from typing import Any

from model.config import ModelConfig
from model.settings import FREE, Finetune, Pretrain

KINDS = {"pretrain": Pretrain, "finetune": Finetune}


def differing(part: str, kind: str, before: Any, now: Any) -> dict[str, tuple[Any, Any]]:
    """Keys of `part` (settings, model, corpus ...) that a run of `kind` has otherwise than it was written down with,
    and both values. Some settings are free to change, and a data root that has moved is the same one.

    A key that was not there yet counts as its default: a run does not end with the version of Gristmill it began under.
    """
    before, now = ({"": value} if not isinstance(value, dict) else value for value in (before, now))
    before, now = _whole(part, kind, before), _whole(part, kind, now)
    keys = sorted((before.keys() | now.keys()) - (FREE if part == "settings" else {"folder"}))
    return {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}


def _whole(part: str, kind: str, values: dict) -> dict:
    if part == "settings" and kind in KINDS and values:
        return KINDS[kind]().model_dump(mode="json") | values
    if part == "model" and values:
        known = {field.name for field in dataclasses.fields(ModelConfig)}
        return dataclasses.asdict(ModelConfig(**{key: values[key] for key in known & values.keys()})) | values
    return values
