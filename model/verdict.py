"""What the ranks of a machine leave for the process that launched them: a mistake of the user, or that they stopped.

error.json lies beside config.json, error-1.json beside the config-1.json of another machine. Each holds {"message"} or
{"stopped"}. A run that is complete has its summary there.
"""

import json
import os
from pathlib import Path

SUMMARY = "summary.json"
LATE = 60.0                                 # seconds in which a shared disk shows what another machine wrote


def place(config: Path) -> Path:
    """The file for ranks that read the configuration `config`."""
    return config.with_name(f"error{config.stem.removeprefix('config')}.json")


def leave(config: Path, about: dict) -> None:
    """Leaves the last word, whole or not at all. The first mistake stays."""
    path = place(config)
    if "message" in read(path):
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(about))
    os.replace(temporary, path)


def read(path: Path) -> dict:
    """The last word that was left; {} when there is none."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
