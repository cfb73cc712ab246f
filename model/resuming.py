"""Whether a run that is there is the one that is asked for."""

import dataclasses
from math import isclose
from types import SimpleNamespace
from typing import Any

from model.config import ModelConfig
from model.schedule import learning_rate
from model.settings import FREE, SCHEDULE, Finetune, Pretrain

KINDS = {"pretrain": Pretrain, "finetune": Finetune}


def differing(part: str, kind: str, before: Any, now: Any, taken: int = 0) -> dict[str, tuple[Any, Any]]:
    """Keys of `part` (settings, model, corpus ...) that a run of `kind` has otherwise than it was written down with,
    and both values. Some settings are free to change, and a data root that has moved is the same one; the schedule is
    where the `taken` steps had the learning rates that it gives them.

    A key that was not there yet counts as its default: a run does not end with the version of Gristmill it began under.
    """
    before, now = ({"": value} if not isinstance(value, dict) else value for value in (before, now))
    before, now = _whole(part, kind, before), _whole(part, kind, now)
    keys = sorted((before.keys() | now.keys()) - (FREE if part == "settings" else {"folder"}))
    differ = {key: (before.get(key), now.get(key)) for key in keys if before.get(key) != now.get(key)}
    if part == "settings" and differ.keys() & SCHEDULE and _same_rates(before, now, taken):
        differ = {key: both for key, both in differ.items() if key not in SCHEDULE}
    return differ


def _same_rates(before: dict, now: dict, taken: int) -> bool:
    one, other = SimpleNamespace(**before), SimpleNamespace(**now)
    return one.steps >= taken <= other.steps and all(
        isclose(learning_rate(step, one), learning_rate(step, other)) for step in range(1, taken + 1))


def _whole(part: str, kind: str, values: dict) -> dict:
    if part == "settings" and kind in KINDS and values:
        return KINDS[kind]().model_dump(mode="json") | values
    if part == "model" and values:
        known = {field.name for field in dataclasses.fields(ModelConfig)}
        return dataclasses.asdict(ModelConfig(**{key: values[key] for key in known & values.keys()})) | values
    return values
