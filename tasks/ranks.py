"""The ranks of a training: how they are started on this machine, watched to their end, and recorded in the ledger."""

import base64
import contextlib
import errno
import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from model import checkpoint, verdict
from model.settings import Optimisation, Processes, at_once
from model.verdict import SUMMARY
from tasks import process_group
from tasks.errors import UserError
from tasks.ledger import record
from tasks.storage import Root, replacing

# what the ledger keeps of a line of metrics.jsonl
STEP = ("step", "loss", "lr", "tokens", "seconds", "grad_norm", "tokens_per_second", "mfu", "energy_joules", "left_out",
        "back_to")
# seconds: between signs of life, signs missed until a machine counts as lost, waiting for the first machine's store
TIMES = "keep_alive_interval=5,keep_alive_max_attempt=3,read_timeout=300"
LINGER = 10.0                                   # seconds that ranks get to end after one has said what is wrong
# what tells a process which rank of whom it is: a pod of a PyTorchJob has it for ranks that are not ours
FOREIGN = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PET_NNODES"}
RECORDED = "recorded.json"                      # the step up to which the ledger knows the run, and whether it ended
Progress = Callable[[dict], None]               # called with the newest line of metrics.jsonl

log = logging.getLogger("gristmill.ranks")


class Stopped(RuntimeError):
    """The ranks were told to stop, saved a checkpoint and ended: launch again to go on."""


class _Mistake(Exception):
    """A rank has said what the user has to change."""


def train(root: Root, folder: Path, module: str, config: dict, settings: Optimisation, processes: Processes,
          ledger: dict, progress: Progress | None, run_id: str | None) -> dict:
    """Runs `module` on `config` in as many ranks as `processes` says, and returns the summary that they leave.

    With several nodes the first one alone (node_rank 0) locks the run and records; each reads a configuration of its
    own and has a verdict of its own, so that none waits for another's file. UserError while another process trains the
    same run, or while ranks of one that died still save.
    """
    there = gpus() if settings.device != "cpu" else 0
    n = ranks_here(settings, processes, there)
    world = n * processes.nodes
    if there and n > there:
        raise UserError(f"setting processes: {n} ranks on this machine, which has {there} GPUs (as "
                        "CUDA_VISIBLE_DEVICES leaves them): set processes to that or less (0: one a GPU), or device to "
                        "cpu")
    if processes.node_rank >= processes.nodes:
        raise UserError(f"setting node_rank: {processes.node_rank} of {processes.nodes} nodes; they count from 0")
    at_once(settings, world)
    for nodes in range(processes.nodes_at_least or processes.nodes, processes.nodes):
        if settings.batch % (n * nodes):
            raise UserError(f"setting batch: {settings.batch} sequences cannot be shared evenly by {n * nodes} ranks, "
                            f"with which nodes_at_least {processes.nodes_at_least} lets the run go on; change one of "
                            "them")
    node = f"-{processes.node_rank}" if processes.node_rank else ""
    path = folder / f"config{node}.json"

    def launch(look: Callable[[], None], held: int | None = None) -> dict:
        write(path, config)
        before = _stamp(folder / SUMMARY)
        run(command(processes, n, module, path), folder / f"log{node}.txt", verdict.place(path),
            environment(root, processes, n), processes.grace, look, held)
        return _new_summary(folder, before)

    if node:
        return launch(lambda: None) | {"skipped": False, "folder": str(folder)}
    with root.lock(f"trainings/{folder.name}/lock", f"the training run {folder.name!r}") as held:
        ledger |= {"world_size": world, "zero_stage": settings.zero_stage if settings.engine == "deepspeed" else 0,
                   "settings": {**config["settings"], "model": config["model"]},
                   "device": "gpu" if gpus() and settings.device != "cpu" else "cpu"}
        watch = _Watch(root, folder, config["run"], progress, run_id)
        record(root, "training", config["run"], {"state": "started", **ledger}, run_id)
        outcome, reason = "failed", None
        try:
            summary = launch(watch.look, held)
            watch.look()
            outcome = "ok"
        except (UserError, RuntimeError) as error:
            outcome, reason = ("cancelled" if isinstance(error, Stopped) else "failed"), type(error).__name__
            raise
        except BaseException as error:
            outcome, reason = "cancelled", type(error).__name__
            raise
        finally:
            watch.progress = None  # what it raises ended the wait: it must not keep the end out of the ledger
            watch.look()
            watch.end(outcome, reason, ledger)
    return summary | {"skipped": False, "folder": str(folder)}


def settle(root: Root, folder: Path, run: str, ledger: dict, run_id: str | None) -> None:
    """Puts into the ledger what a process that was killed behind a run's last step could not; once."""
    marker = folder / RECORDED
    if not marker.exists():                         # a run of before there was one
        return
    with contextlib.suppress(UserError), root.lock(f"trainings/{folder.name}/lock", run):   # else it is still recorded
        if not json.loads(marker.read_text())["ended"]:
            watch = _Watch(root, folder, run, None, run_id)
            watch.look()
            watch.end("ok", None, ledger)


def _new_summary(folder: Path, before: tuple | None) -> dict:
    """The summary that a launch left; on a shared file system it may be seen late. Stopped where none comes."""
    deadline = time.monotonic() + verdict.LATE
    while _stamp(folder / SUMMARY) in (None, before):
        if time.monotonic() > deadline:
            raise Stopped(f"{folder.name}: its processes ended and left no {SUMMARY}; launch it again to go on")
        time.sleep(0.2)
    return json.loads((folder / SUMMARY).read_text())


def _stamp(path: Path) -> tuple | None:
    """Changes when a file is written anew, whatever the clocks of the machines say; None where there is none."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def ranks_here(settings: Optimisation, processes: Processes, there: int) -> int:
    """How many ranks this machine of `there` GPUs starts: as many as were asked for; or one a GPU, of which some stay
    idle where the batch cannot be shared evenly among all; or one."""
    least = min(processes.nodes_at_least or processes.nodes, processes.nodes)
    worlds = range(least, processes.nodes + 1)                  # machines that the run goes on with
    n = processes.processes or next((n for n in range(there, 1, -1)
                                     if not any(settings.batch % (n * nodes) for nodes in worlds)), 1)
    if not processes.processes and n < there:
        all_of_them = math.lcm(*(there * nodes for nodes in worlds))
        log.warning("%d of the %d GPUs of this machine stay idle: a batch of %d sequences cannot be shared evenly among"
                    " all; one of %d can", there - n, there, settings.batch,
                    -(-settings.batch // all_of_them) * all_of_them)
    return n


class _Watch:
    """Follows metrics.jsonl and checkpoints/: progress as it comes, the ledger once a checkpoint makes steps durable.

    Steps behind the last checkpoint are computed again after a crash; recording them late records them once. How far
    it has recorded is written down after it has: what a killed process left out is made up for by the next one.
    """

    def __init__(self, root: Root, folder: Path, run: str, progress: Progress | None, run_id: str | None):
        self.root, self.folder, self.run, self.progress, self.run_id = root, folder, run, progress, run_id
        known = checkpoint.latest(folder / "checkpoints")
        self.recorded = checkpoint.step(known) if known else 0          # not behind one that was removed since
        if (folder / RECORDED).exists():
            self.recorded = min(self.recorded, json.loads((folder / RECORDED).read_text())["step"])
        self._mark(False)
        self.step = self.tokens = 0
        self.first = self.last = self.newest = None
        self.lines: dict[int, dict] = {}                # steps that no recorded checkpoint holds yet
        self.file, self.at = None, 0

    def _mark(self, ended: bool) -> None:
        write(self.folder / RECORDED, {"step": self.recorded, "ended": ended})

    def end(self, outcome: str, reason: str | None, ledger: dict) -> None:
        """Records how the run ended."""
        path = self.folder / SUMMARY
        summary = json.loads(path.read_text()) if path.exists() else {}
        ended = {"steps": self.step, "tokens": self.tokens, "loss_first": self.first, "loss_last": self.last}
        ended |= {key: summary[key] for key in ("seconds", "energy_joules") if key in summary}
        record(self.root, "training", self.run, {"state": "ended", "outcome": outcome, "reason": reason, **ledger,
                                                 **ended, "energy_method": summary.get("energy_how")}, self.run_id)
        self._mark(outcome == "ok")

    def look(self) -> None:
        if self._read() and self.newest and self.progress:
            self.progress(self.newest | {"loss_first": self.first})
        for path in checkpoint.all_whole(self.folder / "checkpoints"):
            if checkpoint.step(path) > self.recorded:
                self._record(path, checkpoint.step(path))

    def _read(self) -> bool:
        """Takes what metrics.jsonl has grown by; a run that resumes puts a shorter one in its place."""
        try:
            file = open(self.folder / "metrics.jsonl", "rb")
        except FileNotFoundError:
            return False
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self.file:
                self.file, self.at, self.lines, self.first = inode, 0, {}, None
            file.seek(self.at)
            grown = file.read()
        grown = grown[:grown.rfind(b"\n") + 1]          # the rest is half written
        self.at += len(grown)
        for text in grown.splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if line["loss"] is not None:            # it is where a batch of a loss that is no number was left out
                    self.newest, self.last = line, line["loss"]
                    self.first = line["loss"] if self.first is None else self.first
                self.step, self.tokens = line["step"], line["tokens"]
                if line["step"] > self.recorded:
                    self.lines[line["step"]] = line
        return bool(grown)

    def _record(self, path: Path, step: int) -> None:
        try:
            about = json.loads((path / checkpoint.ABOUT).read_text())
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        except FileNotFoundError:
            return                                              # pruned this moment
        steps = [self.lines.pop(number) for number in sorted(self.lines) if number <= step]
        record(self.root, "step", self.run, {"steps": [{name: line[name] for name in STEP if name in line}
                                                       for line in steps]}, self.run_id)
        record(self.root, "checkpoint", self.run, {
            "step": step, "path": str(path.relative_to(self.root.local)), "sha256": about["files"][checkpoint.WEIGHTS],
            "tokens": about["tokens"], "samples": about["samples"], "bytes": size}, self.run_id)
        for line in steps:
            found = {"in the loop": line["bits_per_byte"]} if "bits_per_byte" in line else {}
            found |= {f"in the loop, {name}": value for name, value in line.get("bits_per_byte_by", {}).items()}
            for domain, value in found.items():
                record(self.root, "evaluation", self.run, {"step": line["step"], "task": "held-out", "domain": domain,
                                                           "metric": "bits_per_byte", "value": value}, self.run_id)
            for task, values in line.get("benchmarks", {}).items():
                for metric, value in values.items():
                    record(self.root, "evaluation", self.run, {
                        "step": line["step"], "task": task, "domain": "in the loop, 0-shot", "metric": metric,
                        "value": value}, self.run_id)
        self.recorded = step
        self._mark(False)


def command(processes: Processes, n: int, module: str, config: Path) -> list[str]:
    """The launcher's command line for `n` ranks on this machine."""
    nodes = processes.nodes
    if nodes > 1:
        _check_rendezvous(processes)
    host, _, port = processes.rendezvous.rpartition(":") if nodes > 1 else ("127.0.0.1", "", str(_free_port()))
    if processes.launcher == "deepspeed":
        # What `deepspeed --no_ssh` starts on each node. That itself wants a hostfile, and does not pass SIGTERM on.
        world = {f"node{node}": visible_gpus(n) for node in range(nodes)}
        return [sys.executable, "-u", "-m", "deepspeed.launcher.launch",
                f"--world_info={base64.urlsafe_b64encode(json.dumps(world).encode()).decode()}",
                f"--node_rank={processes.node_rank}", f"--master_addr={host}", f"--master_port={port or '29500'}",
                "--no_local_rank", "--module", module, str(config)]
    if n == nodes == 1:                         # one rank has nobody to meet, and starts in half the time without
        return [sys.executable, "-m", module, str(config)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)]
    if nodes > 1:
        least = processes.nodes_at_least or nodes
        # the first machine has the store where all meet: guessing it from names fails behind aliases and proxies
        torchrun += ["--nnodes", str(nodes) if least == nodes else f"{least}:{nodes}", "--rdzv-backend", "c10d",
                     "--rdzv-endpoint", processes.rendezvous, "--rdzv-id", processes.rendezvous_id,
                     "--rdzv-conf", f"is_host={int(processes.node_rank == 0)},join_timeout={processes.join_timeout},"
                                    + TIMES, "--max-restarts", str(processes.restarts)]
        if processes.address:
            torchrun += ["--local-addr", processes.address]
    else:
        torchrun += ["--standalone"]
    # its own logs are empty, as ranks write to ours; else it leaves a folder of them in /tmp
    return [*torchrun, "--log-dir", os.devnull, "-m", module, str(config)]


def _check_rendezvous(processes: Processes) -> None:
    """UserError for settings with which machines cannot meet, and on the first one where the port is taken."""
    host, _, port = processes.rendezvous.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"setting rendezvous: {processes.nodes} nodes need the HOST:PORT of the first one, not "
                        f"{processes.rendezvous!r}")
    if processes.nodes_at_least > processes.nodes:
        raise UserError(f"setting nodes_at_least: {processes.nodes_at_least} of {processes.nodes} nodes")
    if processes.node_rank:
        return
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)       # what is closing does not count
        try:
            one.bind(("", int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise UserError(f"setting rendezvous: port {port} of this machine is in use by another program; set a "
                            "free one on all nodes, or end that program") from None


def visible_gpus(n: int) -> list[int]:
    """Numbers of the first `n` GPUs that CUDA_VISIBLE_DEVICES leaves: DeepSpeed's launcher sets that anew."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[:n]
    return [int(name) for name in names] if len(names) == n and all(name.strip().isdigit() for name in names) \
        else list(range(n))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def environment(root: Root, processes: Processes, n: int) -> dict[str, str]:
    """The environment of a launcher of `n` ranks, or of the only one."""
    project = str(Path(__file__).parent.parent)
    return {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
        "PYTHONPATH": os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH")])),
        # ninja, which DeepSpeed's build calls, is beside this Python
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "GRISTMILL_LAUNCHER": str(os.getpid()),         # ranks that it left behind end themselves
        "TORCH_EXTENSIONS_DIR": str(root.local / "cache" / "torch_extensions"),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(int(processes.grace)),
        # else a machine that comes back waits for an address that torchrun told in the first round alone
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": str(processes.threads or max(1, (os.cpu_count() or 1) // n)),
        "OMP_WAIT_POLICY": "PASSIVE",           # on a busy machine threads that spin take five times as long
        "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
    }


def run(arguments: list[str], log: Path, error: Path, environment: dict, grace: float,
        look: Callable[[], None], held: int | None = None) -> None:
    """Runs a launcher to its end. Raises UserError with what a rank left in `error`, Stopped, or RuntimeError.

    A mistake of the user that a rank leaves there is the last word: a launcher that would start ranks again is ended.
    What ranks of other machines left beside it since the start counts too, unless those here ended well.
    """
    error.unlink(missing_ok=True)
    before = {path: _stamp(path) for path in error.parent.glob("error*.json")}
    since: list[float] = []

    def said() -> dict:
        """A mistake anywhere, or else what was said here, or elsewhere."""
        new = [verdict.read(path) for path in [error, *sorted(error.parent.glob("error*.json"))]
               if _stamp(path) != before.get(path)]
        return next((about for about in new if "message" in about), next(filter(None, new), {}))

    def watch() -> None:
        look()
        if "message" in said():
            since.append(time.monotonic())
            if since[-1] - since[0] > LINGER:
                raise _Mistake

    try:
        status = process_group.run(arguments, log, environment, grace, watch, held,
                                   "deepspeed.launcher.launch" in arguments)
    except _Mistake:
        status = 1
    about = said() if status else verdict.read(error)
    if status and "message" in about:
        raise UserError(about["message"])
    if about.get("stopped"):
        raise Stopped(f"{error.parent.name}: stopped with a checkpoint; launch it again to go on")
    if status:
        raise RuntimeError(f"{error.parent.name}: a process of the run ended with status {status}; {log} ends with:\n"
                           + _tail(log))


def _tail(log: Path, lines: int = 30, size: int = 1 << 16) -> str:
    """The last lines of a log that may have grown for weeks."""
    if not log.exists():
        return ""
    with open(log, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


def gpus() -> int:
    """GPUs of this machine, without loading PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) if Path("/proc/driver/nvidia/gpus").exists() else 0


def write(path: Path, value: dict) -> None:
    """A JSON file, whole or not at all."""
    with replacing(str(path)) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode())
