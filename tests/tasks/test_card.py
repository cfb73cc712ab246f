import copy
import json

import pytest
import yaml

from tasks.card import dataset_card
from tasks.storage import Root
from tests.lineage_home import make_home


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict:
    root = Root(str(tmp_path_factory.mktemp("home")))
    make_home(root)
    return root.read_json("corpora/web/versions/000002/manifest.json")


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_front_matter_says_what_the_hub_wants(manifest):
    matter = front(dataset_card(manifest))
    assert matter["language"] == ["en", "de"] and matter["multilinguality"] == "multilingual"
    assert matter["size_categories"] == ["n<1K"] and matter["task_categories"] == ["text-generation"]
    assert matter["license"] == "other" and matter["license_name"]
    assert matter["configs"][0]["data_files"] == [{"split": "train", "path": "tokens/*.parquet"}]


def test_the_card_states_sources_funnel_languages_mixture_settings_and_limits(manifest):
    card = dataset_card(manifest)
    for line in ("# web, version 2", "3 documents, 400 tokens", "follows version 1",
                 "| web | CC-MAIN-2026-01 | 1 | 99 |", "| en | 2 | 300 | 75.0 % |",
                 "| dedup | 7 | 5 | 2 | exact 1, near 1 |", "| filter | 5 | 3 | 2 | words_min 2 |", "words_min: 50",
                 "## Known limits", "load_dataset", "`gpt2`: 50,257 tokens", manifest["shards"][0]["sha256"]):
        assert line in card


def test_the_card_depends_on_the_manifest_alone(manifest):
    shuffled = json.loads(json.dumps(manifest, sort_keys=True))
    shuffled["funnel"][1]["rules"] = dict(reversed(manifest["funnel"][1]["rules"].items()))
    shuffled["inputs"].reverse()
    assert dataset_card(shuffled) == dataset_card(manifest)


@pytest.mark.parametrize(("rows", "category"), [
    (999, "n<1K"), (1000, "1K<n<10K"), (10**9, "1B<n<10B"), (10**13, "n>1T")])
def test_sizes_are_the_hub_s(manifest, rows, category):
    changed = copy.deepcopy(manifest)
    changed["shards"] = [changed["shards"][0] | {"rows": rows}]
    assert front(dataset_card(changed))["size_categories"] == [category]


def test_a_sparse_manifest_still_has_a_card(manifest):
    sparse = copy.deepcopy(manifest) | {"inputs": [], "mixture": [], "funnel": [], "parent": None, "settings": {}}
    card = dataset_card(sparse)
    assert front(card)["language"] == ["und"] and "None." in card and "follows version" not in card


def test_names_cannot_break_out_of_their_cell(manifest):
    changed = copy.deepcopy(manifest)
    changed["inputs"][0]["source"] = "a|b\n# heading"
    changed["mixture"][0]["language"] = 'x"\n---\nlicense: mit'
    card = dataset_card(changed)
    assert "a\\|b # heading" in card and front(card)["license"] == "other"


def test_many_shards_are_not_all_listed(manifest):
    changed = copy.deepcopy(manifest)
    changed["shards"] = changed["shards"] * 30
    assert "and 40 more" in dataset_card(changed)
