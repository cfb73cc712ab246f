"""Mutates the shared sample archives and reads them: no exception, no hang, memory bounded, every record accounted for.
By hand:

    GRISTMILL_SHARED=... python tests/benchmarks/fuzz_reading.py [MUTATIONS=2000] [SEED=0]

Each mutation takes a sample (at most 300 KB of it), unpacked or as it is, changes it in one to four ways (bits flipped,
bytes overwritten, cut out, doubled, inserted, truncated, a number in a header changed, packed again as gzip per record,
lz4 or zstd), and goes through `documents` whole and, for every tenth, in splits. A mutation that fails is printed with
its seed; `MUTATIONS=1 SEED=n` repeats it.
"""

import gzip
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import zlib
from dataclasses import replace
from pathlib import Path

import lz4.frame
from backports import zstd

from tasks.extract import Extract, documents
from tasks.ingest import Split
from tasks.schema import id_bytes

SECONDS = 20                 # a mutation may take
GROWTH = 400 << 20           # bytes that the process may grow by over the whole run
_MAX = 300_000
_RECORD = re.compile(rb"(?=WARC/1\.\d\r?\n)")
_NUMBER = re.compile(rb"(?<=[ :])\d+(?=\r?\n)")


def mutated(data: bytes, chance: random.Random) -> bytes:
    plain = data
    if data.startswith(b"\x1f\x8b") and chance.random() < 0.6:
        inflater, plain = zlib.decompressobj(31), b""
        try:
            while data and len(plain) < 4 * _MAX:
                plain += inflater.decompress(data)
                data, inflater = inflater.unused_data, zlib.decompressobj(31)
        except zlib.error:
            pass
    raw = bytearray(plain[:_MAX])
    if chance.random() < 0.5:
        raw = _changed(raw, chance)
    if chance.random() < 0.6:
        pieces = [piece for piece in _RECORD.split(bytes(raw)) if piece]
        if chance.random() < 0.2:
            size = chance.randrange(20, 20_000)
            pieces = [bytes(raw[i:i + size]) for i in range(0, len(raw), size)]
        pack = chance.choice([lambda b: gzip.compress(b, 1), lz4.frame.compress, zstd.compress])
        raw = bytearray(b"".join(map(pack, pieces)))
    for _ in range(chance.randrange(4)):
        raw = _changed(raw, chance)
    return bytes(raw)


def _changed(raw: bytearray, chance: random.Random) -> bytearray:
    if not raw:
        return raw
    at, n = chance.randrange(len(raw)), chance.choice([1, 2, 8, 100, 5000])
    kind = chance.randrange(8)
    if kind == 0:
        raw[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        raw[at:at + n] = chance.randbytes(min(n, len(raw) - at))
    elif kind == 2:
        del raw[at:at + n]
    elif kind == 3:
        raw[at:at] = raw[at:at + n]
    elif kind == 4:
        raw[at:at] = chance.choice([chance.randbytes(n), b"\0" * n, b"\r\n", b"\x1f\x8b\x08", b"WARC/1.0\r\n",
                                    b"<div>" * n])
    elif kind == 5:
        del raw[at:]
    else:
        numbers = list(_NUMBER.finditer(raw))
        if numbers:
            place = chance.choice(numbers)
            raw[place.start():place.end()] = str(chance.choice(
                [0, 1, -1, int(place.group()) + chance.randrange(-50, 50), 10 ** chance.randrange(3, 30)])).encode()
    return raw


def _late(*_):
    raise TimeoutError(f"more than {SECONDS} s")


def check(folder: Path, data: bytes, splits: bool) -> tuple[int, int]:
    """(documents, fates) of `data`. Raises when something is not as it must be."""
    path = folder / "mutated"
    path.write_bytes(data)
    split = Split("home:/mutated", str(path), 0, len(data), "web", "S", "0" * 64, "warc")
    whole = documents(split, Extract(max_record_bytes=4 << 20))
    ids = sorted(id_bytes(whole.table["doc_id"]).to_pylist() + id_bytes(whole.fates["doc_id"]).to_pylist())
    assert len(set(ids)) == len(ids) == whole.rows_in, "identifiers are not unique"
    if splits:
        step = max(2000, len(data) // 7)
        parts = [documents(replace(split, start=start, end=min(start + step, len(data))),
                           Extract(max_record_bytes=4 << 20)) for start in range(0, len(data), step)]
        again = sorted(i for part in parts for table in (part.table, part.fates)
                       for i in id_bytes(table["doc_id"]).to_pylist())
        assert again == ids, f"splits of {step} bytes give other records"
    return len(whole.table), len(whole.fates)


def main() -> int:
    count, seed = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 2000), (2, 0)))
    samples = Path(os.environ["GRISTMILL_SHARED"]) / "data" / "warc_samples"
    files = [p.read_bytes()[:4 * _MAX] for p in sorted(samples.rglob("*")) if p.is_file() and p.suffix != ".json"]
    signal.signal(signal.SIGALRM, _late)
    failures, totals, slowest, began = 0, [0, 0], 0.0, time.monotonic()
    peak = None
    with tempfile.TemporaryDirectory() as folder:
        for n in range(seed, seed + count):
            chance = random.Random(n)
            data = mutated(chance.choice(files), chance)
            started = time.monotonic()
            signal.alarm(SECONDS)
            try:
                kept, dropped = check(Path(folder), data, n % 10 == 0)
                totals = [totals[0] + kept, totals[1] + dropped]
            except Exception:
                failures += 1
                print(f"seed {n}:", traceback.format_exc(limit=-4), flush=True)
            signal.alarm(0)
            slowest = max(slowest, time.monotonic() - started)
            if n - seed == min(50, count - 1):  # compiled code and tables are there by then
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
    rate = count / (time.monotonic() - began)
    print(f"{count} mutations from seed {seed}, {rate:.0f} a second, slowest {slowest:.1f} s: {totals[0]} documents, "
          f"{totals[1]} fates, {failures} failures, grown by {growth >> 20} MB")
    return int(failures > 0 or growth > GROWTH)


if __name__ == "__main__":
    sys.exit(main())
