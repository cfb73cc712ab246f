"""A fastText model that settings pin: fetched once, checked, used."""

import fcntl
import hashlib
import logging
import os
from functools import lru_cache
from pathlib import Path

from tasks.annotate.labels import UNDETERMINED, code
from tasks.errors import UserError

log = logging.getLogger("gristmill.annotate")

SECOND_SURE = 0.8            # what a passage needs to count as one in another language: these scores are not calibrated


@lru_cache(maxsize=2)
def load(uri: str, sha256: str):
    """The model at a path or URI, as fastText's object. Raises UserError when the file is missing, has another sha256,
    or is no supervised fastText model.
    """
    import fasttext

    path = local_copy(uri, sha256)
    try:
        model = fasttext.load_model(path)
        labelled = all(label.startswith("__label__") for label in model.get_labels())
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"language.model {uri} is no fastText model ({type(error).__name__}); "
                        f"name a .bin or .ftz file of a supervised model") from None
    if not labelled:
        raise UserError(f"language.model {uri} has no language labels; name a supervised fastText model")
    return model


def classify(model, documents: list[list[str]]) -> tuple[list[str], list[float], list[float], list[str | None]]:
    """Languages, scores, other-language fractions and second languages of documents: lists of passages, none empty."""
    def one(text: str) -> tuple[str, float]:
        labels, scores = model.predict(text)
        return (code(labels[0]), min(1.0, float(scores[0]))) if labels else (UNDETERMINED, 0.0)

    codes, scores, fractions, seconds = [], [], [], []
    for document in documents:
        language, score = one(" ".join(document))
        others: dict[str, int] = {}
        for passage in document if len(document) > 1 else ():
            theirs, sure = one(passage)
            if theirs != language and sure >= SECOND_SURE:
                others[theirs] = others.get(theirs, 0) + len(passage)
        codes.append(language)
        scores.append(score)
        fractions.append(sum(others.values()) / sum(map(len, document)))
        seconds.append(max(others, key=others.get) if others else None)
    return codes, scores, fractions, seconds


def local_copy(uri: str, sha256: str) -> str:
    """A path at which the model lies, its sha256 checked. What is not on this disk is fetched once, into
    `gristmill/models/` of the user's cache folder (XDG_CACHE_HOME): one process fetches and the others wait for it.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        if "file" not in filesystem.protocol:
            return _cached(uri, sha256.lower())
        with open(path, "rb") as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()
    except UserError:                                       # which is a ValueError
        raise
    except (OSError, ValueError, ImportError) as error:
        raise _unreadable(uri, type(error).__name__) from None
    if found != sha256.lower():
        raise _another(uri, found, sha256)
    return path


def _unreadable(uri: str, reason: str) -> UserError:
    return UserError(f"cannot read language.model {uri} ({reason}); check the path, fetch the file yourself and name "
                     f"it there, or take it out of the settings to use the model that comes with gristmill")


def _another(uri: str, found: str, sha256: str) -> UserError:
    return UserError(f"language.model {uri} has sha256 {found}, but language.model_sha256 is {sha256.lower()}; "
                     f"get the right file, or pin the sum of this one")


def _cached(uri: str, sha256: str) -> str:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill" / "models"
    target = folder / f"{sha256}.bin"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{sha256}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)                # let go when the file is closed or its process ends
            if not target.exists():
                log.warning("fetching %s into %s, once", uri.split("?")[0], folder)
                _download(uri, str(target))
            with open(target, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                target.unlink()
                raise _another(uri, found, sha256)
    except OSError as error:
        raise _unreadable(uri, type(error).__name__) from None
    return str(target)


def _download(uri: str, target: str) -> None:
    from tasks.ingest import Ingest
    from tasks.ingest.download import FetchError, fetch
    from tasks.storage import Root

    root = Root(os.path.dirname(target))
    try:
        os.replace(fetch(uri, root, Ingest(attempts=5)), target)
    except FetchError as error:
        raise _unreadable(uri, str(error)) from None
