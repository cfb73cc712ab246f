"""The settings of a build, composed of what each stage declares beside its idea, and the named recipes.

A recipe is a YAML file in `flows/recipes/`, or a path to one of your own; what it leaves out keeps
its default, and `--set stage.setting=value` (or the flow's `settings`) overrides it.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.annotate import Annotate
from tasks.decontaminate import Decontaminate
from tasks.dedup import Dedup
from tasks.errors import UserError
from tasks.extract import Extract
from tasks.filter import Filter, columns_read
from tasks.filter import check as check_rules
from tasks.ingest import Ingest
from tasks.lines import Lines
from tasks.overlay import overlaid
from tasks.pool import Limits
from tasks.sample import Sample
from tasks.scrub import Scrub
from tasks.tokenize import Tokenize

RECIPES = Path(__file__).parent / "recipes"


class PoolLimits(BaseModel):
    """When a process of the pool is ended. Not part of any key: limits do not change what a page gives."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shard_seconds: float = Field(3600.0, gt=0, description="seconds that one shard may take in one stage")
    item_seconds: float = Field(30.0, gt=0, description="seconds that one page may take")
    memory_gib: float = Field(4.0, gt=0, description="resident memory of one process, GiB")

    def as_limits(self) -> Limits:
        return Limits(self.shard_seconds, self.item_seconds, int(self.memory_gib * 2**30))


class Recipe(BaseModel):
    """Everything that decides what a corpus holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ingest: Ingest = Ingest()
    extract: Extract = Extract()
    lines: Lines = Lines()
    annotate: Annotate = Annotate()
    dedup: Dedup = Dedup()
    filter: Filter = Filter()
    scrub: Scrub = Scrub()
    decontaminate: Decontaminate = Decontaminate()
    sample: Sample = Sample()
    tokenize: Tokenize = Tokenize()
    limits: PoolLimits = PoolLimits()

    def key(self) -> str:
        """A hash of every setting that decides what the corpus holds."""
        settings = self.model_dump(mode="json", exclude={"limits"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def recipes() -> list[str]:
    """The names of the recipes that come with Gristmill."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(recipe: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe by name or path and lays `overrides` (nested) over it.

    Raises UserError naming the file, the key and the nearest valid one.
    """
    path = RECIPES / f"{recipe}.yaml" if recipe in recipes() else Path(recipe)
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError):
        near = difflib.get_close_matches(recipe, recipes(), 1)
        raise UserError(
            f"no recipe {recipe!r}{f'; did you mean {near[0]!r}?' if near else ''} The recipes are "
            f"{', '.join(recipes())}; a file of your own is given by its path"
        ) from None
    except yaml.YAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        raise UserError(f"{path}{where}: this is not YAML; mend the file") from None
    if not isinstance(read, dict):
        raise UserError(f"{path}: a recipe is a mapping of stages to their settings")
    merged = overlaid(read, overrides or {})
    return _validated(merged, path.name, overrides or {})


def _validated(settings: Mapping[str, Any], file: str, overrides: Mapping[str, Any]) -> Recipe:
    try:
        recipe = Recipe.model_validate(settings)
    except ValidationError as error:
        given = all(_holds(overrides, problem["loc"]) for problem in error.errors()[:5])
        where = "the settings given" if given else f"{file} with the settings given" if overrides else file
        raise UserError(f"{where}: {sentences(Recipe, error)}") from None
    check_rules(recipe.filter)
    if recipe.annotate.quality.model is None:
        for rule, columns in columns_read(recipe.filter).items():
            if "quality_score" in columns:
                raise UserError(
                    f"{file}: the rule {rule} reads quality_score, and there is no classifier to give one, so that it "
                    f"would drop every page; name one in annotate.quality.classifier, or set "
                    f"filter.{rule}.enabled=false"
                )
    return recipe


def _holds(settings: Any, location: Iterable[Any]) -> bool:
    for part in location:
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True


def sentences(model: type[BaseModel], error: ValidationError) -> str:
    """What pydantic found wrong with settings of `model`, in words: the key, and the nearest valid one."""
    return "; ".join(_sentence(model, problem) for problem in error.errors()[:5])


def _sentence(model: Any, problem: dict) -> str:
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location)
    if problem["type"] != "extra_forbidden":
        return f"the setting {name} {problem['msg'][0].lower()}{problem['msg'][1:]}"
    for part in location[:-1]:
        model = getattr(model, "model_fields", {})[part].annotation
    valid = list(model.model_fields)
    near = difflib.get_close_matches(location[-1], valid, 1, cutoff=0.5)
    prefix = ".".join(location[:-1] + [""]) if len(location) > 1 else ""
    if near:
        return f"there is no setting {name}; did you mean {prefix}{near[0]}?"
    return f"there is no setting {name}; there are {', '.join(prefix + v for v in valid)}"


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """`["filter.gopher_words.min=80"]` -> `{"filter": {"gopher_words": {"min": 80}}}`; values are YAML."""
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {assignment!r} has no value; write it as stage.setting=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--set {assignment!r}: the value is not YAML") from None
        for part in reversed(name.strip().split(".")):
            parsed = {part: parsed}
        overrides = overlaid(overrides, parsed)
    return overrides
