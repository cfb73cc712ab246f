import pytest
import yaml

from flows.settings import Recipe, load_recipe, parse_overrides, recipes
from tasks.errors import UserError


@pytest.mark.parametrize("name", recipes())
def test_the_recipes_load_and_their_settings_come_back_from_a_manifest(name):
    recipe = load_recipe(name)
    assert Recipe.model_validate(recipe.model_dump(mode="json", exclude={"limits"})).key() == recipe.key()


def test_overrides_lie_over_the_file_and_only_where_they_say(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"filter": {"presets": ["gopher"], "gopher_words": {"min": 70, "max": 900}}}))
    recipe = load_recipe(str(path), parse_overrides(["filter.gopher_words.min=80", "tokenize.vocab_size=500"]))
    assert (recipe.filter.gopher_words.min, recipe.filter.gopher_words.max) == (80, 900)
    assert recipe.filter.presets == ["gopher"] and recipe.tokenize.vocab_size == 500


def test_what_decides_the_corpus_changes_the_key_and_limits_do_not():
    base = load_recipe("gopher")
    assert load_recipe("gopher", {"limits": {"item_seconds": 3}}).key() == base.key()
    assert load_recipe("gopher", {"filter": {"gopher_words": {"min": 51}}}).key() != base.key()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filtr": {}}, "there is no setting filtr; did you mean filter?"),
        (
            {"filter": {"gopher_word": {"min": 3}}},
            "there is no setting filter.gopher_word; did you mean filter.gopher_words?",
        ),
        (
            {"filter": {"gopher_words": {"mim": 3}}},
            "there is no setting filter.gopher_words.mim; did you mean filter.gopher_words.min?",
        ),
        ({"dedup": {"threshold": 1.5}}, "the setting dedup.threshold input should be less than or equal to 1"),
        ({"zzz": 1}, "there is no setting zzz; there are ingest, extract"),
    ],
)
def test_a_mistake_names_the_key_and_the_nearest_valid_one(tmp_path, settings, message):
    with pytest.raises(UserError) as given:
        load_recipe("gopher", settings)
    assert message in str(given.value)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError) as read:
        load_recipe(str(path))
    assert message in str(read.value) and "mine.yaml" in str(read.value)


def test_a_recipe_that_is_not_there_or_no_yaml(tmp_path):
    with pytest.raises(UserError, match="no recipe 'finewep'; did you mean 'fineweb'"):
        load_recipe("finewep")
    path = tmp_path / "x.yaml"
    path.write_text("a: [1,\n b: }")
    with pytest.raises(UserError, match="x.yaml, line 2: this is not YAML"):
        load_recipe(str(path))
    path.write_text("- a list")
    with pytest.raises(UserError, match="a recipe is a mapping"):
        load_recipe(str(path))


@pytest.mark.parametrize("assignment", ["filter.gopher_words.min", "=3", "a=[1,"])
def test_a_set_that_says_nothing(assignment):
    with pytest.raises(UserError, match="--set"):
        parse_overrides([assignment])


def test_settings_are_judged_together_not_each_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dedup: {rows: 5}")
    assert load_recipe(str(path), {"dedup": {"bands": 20}}).dedup.bands == 20


def test_a_rule_on_quality_without_a_classifier_is_told_before_anything_runs():
    with pytest.raises(UserError, match="dclm_quality reads quality_score.*annotate.quality.classifier"):
        load_recipe("dclm", {"filter": {"dclm_quality": {"enabled": True}}})
    load_recipe("dclm")
