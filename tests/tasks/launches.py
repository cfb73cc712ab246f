"""What the tests of launching share: a small training, and how to wait for the end of processes."""

from pathlib import Path

import psutil

from model.settings import Pretrain
from tasks import launch, ranks

PROJECT = Path(__file__).parents[2]
SMALL = {"context": 64, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "width": 16, "hidden": 32}
SETTINGS = Pretrain(steps=6, batch=4, micro_batch=2, engine="torch", checkpoint_every=2, evaluate_every=3,
                    evaluate_rows=4, keep_checkpoints=0, model=SMALL)


def kept_events(monkeypatch) -> list[tuple]:
    """What would go into the ledger: (kind, subject, payload, run_id), as it comes."""
    kept = []
    for module in (launch, ranks):
        monkeypatch.setattr(module, "record", lambda root, kind, subject, payload, run_id=None: kept.append(
            (kind, subject, payload, run_id)))
    return kept


def ended(*processes: psutil.Process | None) -> None:
    """Waits for processes that somebody else reaps; fails when one of them lives on."""
    _, alive = psutil.wait_procs([process for process in processes if process], timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
