"""Small stages that misbehave on demand: they live in a module because the pool's children import them by name."""

import os
import signal
import time

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from tasks.errors import UserError
from tasks.schema import FATES, KEPT, doc_id, fates, id_array
from tasks.stage import Result, Stage, attempt


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    hang_at: int = -1
    crash_at: int = -1
    grow_at: int = -1
    keep_below: int = 100
    lose: bool = False
    double: bool = False
    error: str = ""
    hang_after: bool = False
    killed_once: str = ""  # a file: the first process to see it absent makes it and dies
    unreadable: str = ""  # likewise, and reading fails


def documents_of(shard: int) -> pa.Table:
    origin = {name: pa.array(["x"] * 10) for name in ("url", "domain", "snapshot", "source", "warc_file")}
    return pa.table(
        {"doc_id": id_array([doc_id(str(shard), i) for i in range(10)]), **origin, "warc_offset": list(range(10))}
    )


pages = Stage("pages", version=1, settings=Settings, needs={}, makes=KEPT)


@pages.shard
def take_pages(shard: int, settings: Settings) -> Result:
    kept, dropped = [], []
    for row in range(10):
        if reason := attempt(row):
            dropped.append((row, reason))
            continue
        if row == 4 and shard == 1 and settings.killed_once and not os.path.exists(settings.killed_once):
            open(settings.killed_once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        if row == settings.hang_at and shard == 1:
            time.sleep(600)
        if row == settings.crash_at and shard == 1:
            os.abort()
        if row == settings.grow_at and shard == 1:
            hoard = b"x" * (400 << 20)
            time.sleep(600)
            del hoard
        kept.append(row)
    if settings.hang_after and shard == 1:
        time.sleep(600)
    if settings.unreadable and shard == 1 and not os.path.exists(settings.unreadable):
        open(settings.unreadable, "w").close()
        raise OSError(5, "input/output error")
    if settings.error == "secret":
        raise ValueError("anna@example.com was on the page")
    if settings.error == "user":
        raise UserError("the setting x is wrong")
    origin = documents_of(shard)
    table = pa.table({"doc_id": origin["doc_id"].take(kept), "row": pa.array(kept, pa.int32())}, schema=KEPT)
    return Result(table, fates(origin, [r for r, _ in dropped], "pages", [why for _, why in dropped]), rows_in=10)


thin = Stage("thin", version=1, settings=Settings, needs={"kept": ["doc_id", "row"]}, makes=KEPT, conserves="kept")


@thin.shard
def thin_out(kept: pa.Table, shard: int, settings: Settings) -> Result:
    stays = [i for i, row in enumerate(kept["row"].to_pylist()) if row < settings.keep_below]
    goes = [] if settings.lose else sorted(set(range(len(kept))) - set(stays))
    origin = documents_of(shard).take(kept["row"])
    table = kept.take(stays + stays[:1] if settings.double else stays)
    return Result(
        table,
        fates(origin, goes, "thin", "too_high", value=[float(g) for g in goes], threshold=5.0)
        if goes
        else FATES.empty_table(),
    )
