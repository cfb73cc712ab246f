"""The ledger: what happened, as small immutable events that many processes write at once.

An event is one Parquet file of one row under `ledger/events/YYYY-MM-DD/`, in place whole or not at
all. Events carry their own id, so merging them (`compact`) may be interrupted anywhere: an event seen
twice counts once. `rebuild` turns them and the manifests into `lineage.duckdb` (see `tasks.lineage`).

No personal data: an event holds names, counts, hashes, keys and settings, never page text and never
a value found in a page. Keys that would carry text are refused.

Kinds, their subjects and what the payload may say (all of it optional, other keys are kept as JSON):

    run          flow name    state (started | ended), outcome (ok | failed | cancelled), parameters, seconds, reason
    shard        stage        shards: a list of stage, key, rows_in, rows_out, dropped, seconds, cpu_seconds, bytes,
                              skipped, attempts, spans ({type: n}) for each shard
    artifact     name         path, sha256, bytes, media
    publication  corpus name  version, manifest (sha256), documents, tokens
    training     run name     state, outcome, task (pretrain | finetune), corpus, version, manifest, settings, base
                              (sha256 of a checkpoint), device, world_size, zero_stage, model_parameters, steps, tokens,
                              loss_first, loss_last, seconds, energy_joules, energy_method, reason
    step         run name     steps: a list of step, loss, lr, tokens, seconds, grad_norm, tokens_per_second, mfu,
                              energy_joules (from the run's start), left_out (why the samples were), back_to
                              (the step whose weights were taken back then)
    checkpoint   run name     step, path, sha256, tokens, samples, bytes
    evaluation   run name     step, task, metric, domain, value, n, checkpoint
    ablation     its name     variant, recipe, settings, corpus, version, trained_tokens, epochs, task, metric, domain,
                              seeds, mean, low, high, difference, difference_low, difference_high, p
    classifier   its name     path, sha256, bytes, label, settings (and sources), auc, auc_low, auc_high, brier, ece,
                              ece_scaled, keep, threshold, precision, recall, thresholds (a list of keep, threshold),
                              reliability (a list of low, high, texts, probability, positive), counts of examples
    failure      what failed  stage, reason (a code), attempts, input
"""

import hashlib
import json
import math
import posixpath
import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import Root

EVENTS = pa.schema([
    ("event_id", pa.string()),
    ("kind", pa.string()),
    ("at", pa.timestamp("us", tz="UTC")),
    ("run_id", pa.string()),
    ("subject", pa.string()),
    ("payload", pa.string()),                   # JSON object
])
KINDS = frozenset({
    "run", "shard", "artifact", "publication", "training", "step", "checkpoint", "evaluation", "ablation",
    "classifier", "failure",
})
FOLDER = "ledger/events"
LOOSE = 64                                      # files of one day that are worth merging

# Keys under which page text would travel. Settings and parameters are the user's own words and may use them.
TEXT_KEYS = frozenset({"text", "html", "body", "snippet", "match", "matched"})
OWN_WORDS = frozenset({"settings", "parameters"})


def record(root: Root, kind: str, subject: str, payload: dict, run_id: str | None = None) -> str:
    """Writes one event, durably, and returns its id (32 hex digits).

    Safe from any number of processes at once. Raises ValueError for an unknown kind, a payload that is not
    JSON, or a key that would carry page text; OSError where the storage refuses.
    """
    if kind not in KINDS:
        raise ValueError(f"ledger: unknown kind of event {kind!r}, expected one of {', '.join(sorted(KINDS))}")
    payload = _clean(payload)
    event_id, at = uuid.uuid4().hex, datetime.now(UTC)
    event = {"event_id": event_id, "kind": kind, "at": at, "run_id": run_id, "subject": subject,
             "payload": json.dumps(payload, sort_keys=True, default=str)}
    root.write_bytes(f"{FOLDER}/{at:%Y-%m-%d}/{event_id}.parquet", _parquet(pa.Table.from_pylist([event], EVENTS)))
    return event_id


def _clean(payload, own_words: bool = False):
    """The payload as strict JSON can hold it: numbers that are not finite become text ('nan' is what a loss may be)."""
    if isinstance(payload, dict):
        refused = TEXT_KEYS.intersection(payload) if not own_words else ()
        if refused:
            raise ValueError(f"ledger: an event must not carry page text, so the key {min(refused)!r} is refused")
        return {str(key): _clean(value, own_words or key in OWN_WORDS) for key, value in payload.items()}
    if isinstance(payload, (list, tuple)):
        return [_clean(value, own_words) for value in payload]
    if isinstance(payload, float) and not math.isfinite(payload):
        return repr(payload)
    return payload


def _parquet(events: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(events, sink, compression="zstd", write_page_checksum=True, use_dictionary=False)
    return sink.getvalue().to_pybytes()


def events(root: Root) -> tuple[list[dict], list[str]]:
    """Every event once, oldest first, and the paths of files that cannot be read.

    An event is a dict with the columns of EVENTS, its payload parsed. Works while others record and compact: a
    file that vanishes was merged into one that the next listing shows.
    """
    tables, broken, listed = {}, set(), None
    while listed != (listed := _merged(paths := root.list(FOLDER))):
        for path in paths:
            if path not in tables and path not in broken:
                try:
                    tables[path] = _read(root, path)
                except FileNotFoundError:
                    continue
                except (OSError, pa.ArrowException):
                    broken.add(path)
    found = {row["event_id"]: row for path in sorted(tables) for row in tables[path].to_pylist()}
    for row in found.values():
        row["payload"] = json.loads(row["payload"])
    return sorted(found.values(), key=lambda row: (row["at"], row["event_id"])), sorted(broken)


def _merged(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if posixpath.basename(path).startswith("merged-")]


def _read(root: Root, path: str) -> pa.Table:
    # not Root.read_table: its dataset machinery costs more than a file of one row
    file = pq.ParquetFile(pa.BufferReader(root.read_bytes(path)), page_checksum_verification=True)
    return file.read(use_threads=False).select(EVENTS.names).cast(EVENTS)


def compact(root: Root, loose: int = LOOSE) -> int:
    """Merges the events of every day that has `loose` files or more into one file; returns how many files went.

    The merged file is in place before the first of its sources is removed, and ids tell doubles, so being killed
    anywhere, or running twice at once, neither loses an event nor counts one twice. A file that cannot be read stays.
    """
    days, removed = defaultdict(list), 0
    for path in root.list(FOLDER):
        days[posixpath.dirname(path)].append(path)
    for day, paths in sorted(days.items()):
        if len(paths) < loose:
            continue
        sources = {}
        for path in paths:
            try:
                sources[path] = _read(root, path)
            except (OSError, pa.ArrowException):
                continue  # merged by another process, or damaged: not ours to remove
        rows = {row["event_id"]: row for table in sources.values() for row in table.to_pylist()}
        rows = sorted(rows.values(), key=lambda row: (row["at"], row["event_id"]))
        name = hashlib.sha256("".join(row["event_id"] for row in rows).encode()).hexdigest()[:32]
        target = f"{day}/merged-{name}.parquet"
        root.write_bytes(target, _parquet(pa.Table.from_pylist(rows, EVENTS)))
        for path in sources:
            if path != target:
                root.remove(path)
                removed += 1
    return removed
