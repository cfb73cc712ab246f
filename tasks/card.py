"""The dataset card of a corpus version: what it is made of, what was taken out, how to load it, what to mind.

Markdown with the front matter of the Hugging Face hub (https://huggingface.co/docs/hub/datasets-cards). A
function of the manifest alone, so the same version has the same card.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import yaml

# https://github.com/huggingface/hub-docs/blob/main/datasetcard.md: the hub's classes of size, by rows
SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"),
         (10**12, "100B<n<1T")]
LISTED = 20                                      # shards that a card names one by one
LANGUAGE = re.compile(r"(?!und$)[a-z]{2,3}(-[A-Za-z]+)?")    # a code that the hub knows

LIMITS = """\
- The pages come from the web. They hold errors, opinions and bias; nothing here was checked for truth.
- Personal data was searched for by pattern (see the settings of `scrub`) and replaced by placeholders or stable
  pseudonyms. Patterns miss names, addresses and unusual spellings.
- Language and quality were judged by machine; short pages and mixed languages are where that fails first.
- Near-duplicates are found by estimated similarity. Some remain, and a few pages that only look alike are gone.
- Every dropped record has a row in `fates/` that says which stage and rule took it, and the value that decided. The
  addresses there are as the crawl has them: personal data in a URL is not replaced."""


def dataset_card(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown, from a version's manifest."""
    name, version = manifest["name"], manifest["version"]
    sections = [
        f"# {name}, version {version}",
        f"{_n(manifest['documents'])} documents, {_n(manifest['tokens'])} tokens, {_n(manifest['bytes'])} bytes, "
        f"in {_n(len(manifest['shards']))} token shards. Made by Gristmill with the recipe `{manifest['recipe']}`"
        + (f"; follows version {manifest['parent']}." if manifest.get("parent") is not None else "."),
        "## Sources", _sources(manifest),
        "## Languages", _languages(manifest),
        "## Mixture", _mixture(manifest),
        "## What was kept", _funnel(manifest),
        "## Tokenizer and files", _files(manifest),
        "## How to load it", _loading(manifest),
        "## Licence and rights",
        "Each page stays under its author's rights; this collection grants none. Opt-out signals and licences that "
        "pages declare are recorded in the documents' `rights` column; the settings below say which were heeded.",
        "## Known limits", LIMITS,
        "## Settings",
        f"Key `{manifest['settings_key']}`.\n\n```yaml\n{_yaml(manifest.get('settings') or {})}```",
    ]
    return f"---\n{_yaml(front_matter(manifest))}---\n\n" + "\n\n".join(sections) + "\n"


def front_matter(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The card's metadata, for machines."""
    rows = sum(shard["rows"] for shard in manifest["shards"])
    languages = [language for language, _ in _by(manifest, "language") if LANGUAGE.fullmatch(language)]
    return {
        "pretty_name": f"{manifest['name']} v{manifest['version']}",
        "license": "other",
        "license_name": "rights-of-each-page",
        "language": languages or ["und"],
        "multilinguality": "multilingual" if len(languages) > 1 else "monolingual",
        "size_categories": [next((label for limit, label in SIZES if rows < limit), "n>1T")],
        "task_categories": ["text-generation"],
        "source_datasets": ["original"],
        "tags": ["web", "tokenized", "gristmill"],
        "configs": [{"config_name": "tokens", "data_files": [{"split": "train", "path": "tokens/*.parquet"}],
                     "default": True},
                    {"config_name": "fates", "data_files": [{"split": "train", "path": "fates/*.parquet"}]}],
    }


def _yaml(value) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def _n(value: int | float | None) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _cell(value) -> str:
    text = _n(value) if isinstance(value, (int, float)) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _table(header: list[str], rows: list[list]) -> str:
    if not rows:
        return "None."
    right = [all(isinstance(row[i], (int, float)) or row[i] is None for row in rows) for i in range(len(header))]
    rule = "|" + "|".join("---:" if number else "---" for number in right) + "|"
    return "\n".join(["| " + " | ".join(header) + " |", rule]
                     + ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows])


def _by(manifest: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, int]]]:
    """Documents and tokens by a column of the mixture, the largest first."""
    sums: dict[str, dict[str, int]] = defaultdict(lambda: {"documents": 0, "tokens": 0})
    for entry in manifest.get("mixture", []):
        for what in ("documents", "tokens"):
            sums[entry.get(key) or ""][what] += entry.get(what) or 0
    return sorted(sums.items(), key=lambda item: (-item[1]["tokens"], item[0]))


def _sources(manifest: Mapping[str, Any]) -> str:
    groups: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for entry in manifest.get("inputs", []):
        group = groups[entry.get("source") or "", entry.get("snapshot") or ""]
        group[0] += 1
        group[1] += entry.get("bytes") or 0
    return _table(["source", "snapshot", "files", "bytes"],
                  [[source, snapshot, files, size] for (source, snapshot), (files, size) in sorted(groups.items())])


def _languages(manifest: Mapping[str, Any]) -> str:
    whole = manifest["tokens"]
    return _table(["language", "documents", "tokens", "share of tokens"],
                  [[language or "unknown", sums["documents"], sums["tokens"], _share(sums["tokens"], whole)]
                   for language, sums in _by(manifest, "language")])


def _mixture(manifest: Mapping[str, Any]) -> str:
    return _table(["source", "language", "documents", "weight", "planned tokens", "tokens", "epochs"],
                  [[entry.get(key) for key in ("source", "language", "documents", "weight", "planned_tokens", "tokens",
                                               "epochs")] for entry in manifest.get("mixture", [])])


def _funnel(manifest: Mapping[str, Any]) -> str:
    rows = []
    for entry in manifest.get("funnel", []):
        taken = sorted((entry.get("rules") or {}).items(), key=lambda item: (-item[1], item[0]))
        rows.append([entry["stage"], entry["in"], entry["kept"], entry["dropped"],
                     ", ".join(f"{rule} {n:,}" for rule, n in taken)])
    return _table(["stage", "in", "kept", "dropped", "by rule"], rows)


def _files(manifest: Mapping[str, Any]) -> str:
    tokenizer, shards = manifest["tokenizer"], manifest["shards"]
    listed = _table(["file", "rows", "tokens", "sha256"],
                    [[f"`{shard['path']}`", shard["rows"], shard["tokens"], f"`{shard['sha256']}`"]
                     for shard in shards[:LISTED]])
    more = f"\n\nand {_n(len(shards) - LISTED)} more, all named in `manifest.json`." if len(shards) > LISTED else ""
    return (f"Tokenizer `{tokenizer['name']}`: {_n(tokenizer['n_vocab'])} tokens, end of text {tokenizer['eot']}; its "
            f"files are in `tokenizer/`, in the form of tiktoken. Token ids are `{manifest['dtype']}`; each row is a "
            f"document that ends with the end-of-text token.\n\n{listed}{more}")


def _loading(manifest: Mapping[str, Any]) -> str:
    return f"""\
```python
from datasets import load_dataset

tokens = load_dataset("parquet", data_files="tokens/*.parquet", split="train")
```

or train on it with `gristmill pretrain --corpus {manifest['name']} --version {manifest['version']}`, which checks every
sha256 first. Read the Parquet with page checksums on (pyarrow: `page_checksum_verification=True`)."""
