"""What a Prefect server must know before runs can be asked of it: the work pool, the automations, the deployments.

Plain HTTP where one request does it: importing Prefect costs two seconds.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import UserError

PROJECT = Path(__file__).resolve().parent.parent
POOL = "gristmill"
LOOPBACK = "127.0.0.1"

# Prefect's documented way to find dead flow runs: no heartbeat for 90 s, three beats of 30 s
# (https://docs.prefect.io/v3/advanced/detect-zombie-flows).
ZOMBIES = {
    "name": "Crash flow runs whose process died",
    "trigger": {
        "type": "event",
        "after": ["prefect.flow-run.heartbeat"],
        "expect": [
            "prefect.flow-run.heartbeat",
            "prefect.flow-run.Completed",
            "prefect.flow-run.Failed",
            "prefect.flow-run.Cancelled",
            "prefect.flow-run.Crashed",
        ],
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "posture": "Proactive",
        "threshold": 1,
        "within": 90,
    },
    "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "message": "no heartbeat for 90 seconds"}],
}


def create_pool(api_url: str, pool: str = POOL) -> None:
    """Makes the process work pool and the automation that ends dead runs, where they are missing."""
    try:
        call(api_url, "/work_pools/", {"name": pool, "type": "process"})
    except urllib.error.HTTPError as error:
        if error.code != 409:  # 409: it exists
            raise
    if all(automation["name"] != ZOMBIES["name"] for automation in call(api_url, "/automations/filter", {})):
        call(api_url, "/automations/", ZOMBIES)


def deploy(api_url: str, env: Mapping[str, str], folder: Path, project: Path = PROJECT) -> int:
    """Registers every deployment of `project`/prefect.yaml and returns how many there are.

    `env` is the environment for Prefect's command line; `folder` keeps its log, and what was registered last: the same
    again is skipped. Raises UserError with Prefect's own words when a deployment cannot be registered.
    """
    create_pool(api_url)
    known = folder / "deployments.json"
    wanted = {"server": api_url.rsplit(":", 1)[0], "digest": _digest(project, env)}
    count = call(api_url, "/deployments/count", {})
    if count and known.exists() and json.loads(known.read_text()) == wanted | {"count": count}:
        return count
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=project,
        env={**env, "PWD": str(project)},  # prefect.yaml names the folder by $PWD
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "logs" / "deploy.log").write_text(done.stdout)
    count = call(api_url, "/deployments/count", {})
    if done.returncode or not count:
        words = " ".join(line.strip("│╭╮╰╯─ ") for line in done.stdout.splitlines()).split()
        raise UserError(f"{project}/prefect.yaml could not be registered with Prefect: {' '.join(words[-60:])}")
    known.write_text(json.dumps(wanted | {"count": count}))
    return count


def _digest(project: Path, env: Mapping[str, str]) -> str:
    """Of all that decides the deployments: prefect.yaml, the places it names, the code of the parameters' types."""
    digest = hashlib.sha256(f"{project}\0{env.get('GRISTMILL_HOME')}".encode())
    code = (path for part in ("flows", "tasks", "model") for path in (project / part).rglob("*.py"))
    for path in [project / "prefect.yaml", *sorted(code)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def call(api_url: str, path: str, body: Any = None, timeout: float = 30.0) -> Any:
    """One request to Prefect's API: POST with a body, GET without. Raises urllib.error.HTTPError, URLError.

    A server whose database is busy answers 503 and has done nothing; like Prefect's own client, this asks again.
    """
    request = urllib.request.Request(api_url + path, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        request.add_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    if key := os.environ.get("PREFECT_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    proxies = urllib.request.ProxyHandler({} if LOOPBACK in api_url else None)
    opener, ends, pause = urllib.request.build_opener(proxies), time.monotonic() + timeout, 0.25
    while True:
        try:
            with opener.open(request, timeout=timeout) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503) or time.monotonic() + pause > ends:
                raise
        time.sleep(pause)
        pause *= 2


def healthy(api_url: str) -> bool:
    """Whether a Prefect server answers at `api_url`."""
    try:
        return call(api_url, "/health", timeout=5.0) is True
    except (OSError, ValueError):  # refused, timed out, or not Prefect
        return False
