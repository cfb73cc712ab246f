"""The settings of the filter stage, made of what the rule files declare."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WrapValidator, create_model, model_validator

from tasks.filter.rules import ALWAYS, PRESET_TABLE, PRESETS, RULE_TABLE, Rule, by_language, table_path

DEFAULT_PRESETS = ("gopher", "c4", "fineweb")


def _threshold(value: Any, handler) -> float | dict[str, float] | str:
    if _is_number(value):
        return float(value)
    if isinstance(value, Mapping) and set(value) == {"keep", "classifier"}:
        # A share of random crawl is a score once the classifier is trained: what is set, and recorded, is the score.
        from tasks.annotate.quality import threshold

        return threshold(str(value["classifier"]), value["keep"])
    if isinstance(value, Mapping) and value and all(
            isinstance(key, str) and _is_number(number) for key, number in value.items()):
        return {key: float(number) for key, number in sorted(value.items())}
    if isinstance(value, str) and ":" in value:
        by_language(value)                   # which says what is wrong
        return value
    raise ValueError("must be a number, a mapping of languages to numbers such as {default: 50, ja: 80}, a column of a "
                     "table such as fineweb2:dup_line_frac, or the best share of a classifier such as {keep: 0.1, "
                     "classifier: FOLDER}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


Threshold = Annotated[float | dict[str, float] | str, WrapValidator(_threshold)]


def _settings_of(rule: Rule) -> type[BaseModel]:
    """The settings model of one rule: `enabled` and its parameters."""
    kinds = {bool: bool, int: Threshold, float: Threshold, dict: Threshold, str: Threshold, list: list[str]}
    fields: dict[str, Any] = {name: (kinds[type(default)], float(default) if type(default) is int else default)
                              for name, default in rule.params.items()}
    return create_model(
        f"Rule_{rule.name}", __config__=ConfigDict(extra="forbid", frozen=True), __module__=__name__,
        __doc__=f"{rule.about[0].upper()}{rule.about[1:]}. {rule.source}",
        enabled=(bool | None, Field(None, description="on or off; by default as the presets say")), **fields)


_MODELS = {name: _settings_of(rule) for name, rule in RULE_TABLE.items()}
globals().update({model.__name__: model for model in _MODELS.values()})     # pickle finds classes by name


def preset_parameters(presets) -> dict[str, dict[str, Any]]:
    """The rules that `presets` and ALWAYS turn on, and their parameters: where two set one rule, the later counts."""
    return {name: params for preset in (*ALWAYS, *presets) for name, params in PRESET_TABLE[preset].items()}


def _as_presets_say(cls, data: Any) -> Any:
    """Before validation: parameters that are not given are those of the presets."""
    presets = data.get("presets", DEFAULT_PRESETS) if isinstance(data, Mapping) else None
    if not isinstance(presets, (list, tuple)) or not all(name in PRESETS for name in presets):
        return data
    filled = dict(data)
    for name, params in preset_parameters(presets).items():
        given = filled.get(name, {})
        if isinstance(given, BaseModel):
            given = {key: getattr(given, key) for key in given.model_fields_set}
        if isinstance(given, Mapping):
            filled[name] = {**params, **given}
    return filled


Filter = create_model(
    "Filter", __config__=ConfigDict(extra="forbid", frozen=True), __module__=__name__,
    __doc__="Which documents stay: presets of rules, and each rule's own parameters (filter.gopher_words.min=80). A "
            "number may be given by language (filter.gopher_words.min={default: 50, ja: 80}).",
    __validators__={"as_presets_say": model_validator(mode="before")(classmethod(_as_presets_say))},
    presets=(list[Literal[PRESETS]],
             Field(list(DEFAULT_PRESETS), description="sets of rules that are on, beside rights and language; where "
                                                      "two set the same rule, the later one's parameters count")),
    **{name: (model, Field(default_factory=model, description=RULE_TABLE[name].about))
       for name, model in _MODELS.items()})


def enabled_rules(settings: Filter) -> list[Rule]:
    """The rules that are on, in the order in which they decide."""
    chosen = preset_parameters(settings.presets)
    return [rule for name, rule in RULE_TABLE.items()
            if (name in chosen if getattr(settings, name).enabled is None else getattr(settings, name).enabled)]


def own_settings(settings: Filter) -> dict[str, Any]:
    """What `settings` say beside their presets: nested, without `presets`."""
    said = settings.model_dump(mode="json", exclude={"presets"})
    plain = Filter(presets=settings.presets).model_dump(mode="json")
    own = {name: {key: value for key, value in rule.items() if value != plain[name][key]}
           for name, rule in said.items()}
    return {name: rule for name, rule in own.items() if rule}


def tables(settings: Filter) -> list[str]:
    """The files of parameters by language that the rules that are on refer to."""
    values = [getattr(getattr(settings, rule.name), name) for rule in enabled_rules(settings) for name in rule.params]
    return sorted({str(table_path(value)) for value in values if isinstance(value, str)})
