"""Renders the documentation of modules as HTML, one forked process a module; run as a script by `documentation`.

    python -P pydoc_pages.py JOB.json       {"preload": [names], "modules": [names], "folder": path, "seconds": n}

Importing a module runs its code: it may hang, crash, print or change the process. So each is imported in a fork of
this process, which ends with it; what others of the list did to theirs does not show. A page is folder/NAME.html,
and absent when its module cannot be imported or takes too long.

Imports nothing of Gristmill: it has to start fast, and to see the Python installation alone.
"""

import gc
import importlib
import inspect
import json
import os
import pydoc
import re
import signal
import site
import sys
import sysconfig
import time
import warnings
from functools import lru_cache

_LIBRARY = f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
# What differs from run to run: addresses, in several spellings, and names of threads.
_VARYING = [(re.compile(r"(\bat(?: |&nbsp;))0x[0-9a-fA-F]{6,16}"), r"\g<1>0x7f0000000000"),
            (re.compile(r"(\bhandle )[0-9a-f]{6,16}\b"), r"\g<1>7f0000000000"),
            (re.compile(r"('ref': '[\w.]+:)[0-9]{9,16}"), r"\g<1>0"),                # pydantic's schemas
            (re.compile(r"(started(?: daemon)?) [0-9]+"), r"\1")]
# Of module sys: how this script was called, and what it has imported.
_OWN = [getattr(sys, name) for name in ("argv", "meta_path", "modules", "orig_argv", "path", "path_hooks",
                                        "path_importer_cache")]


class _Repr(pydoc.HTMLRepr):
    """Strings without this machine's folders, before they are cut to a length; sets in the order of their text."""

    def _set(self, value, level, left, right):
        if not value:
            return f"{type(value).__name__}()"
        members = sorted(self.repr1(member, level - 1) for member in value)
        return left + ", ".join(members[:self.maxset]) + (", ..." if len(members) > self.maxset else "") + right

    def repr_set(self, value, level):
        return self._set(value, level, "{", "}")

    def repr_frozenset(self, value, level):
        return self._set(value, level, "frozenset({", "})")

    def repr_str(self, value, level):
        return self.repr_string(unvarying(value), level)


class _Documentation(pydoc.HTMLDoc):
    _repr_instance = _Repr()
    repr = _repr_instance.repr
    escape = _repr_instance.escape

    def filelink(self, url: str, path: str) -> str:
        """Where the source lies below the library, without a link into this machine."""
        return self.escape(unvarying(path))

    def docother(self, object, name=None, mod=None, *ignored):
        """Documents data; the interpreter's own state by its name alone."""
        if any(object is own for own in _OWN):
            return f"<strong>{name}</strong>"
        return super().docother(object, name, mod, *ignored)


@lru_cache(maxsize=1)
def places() -> list[tuple[str, str]]:
    """Folders of this machine and what stands for them in a page; the longest first."""
    paths = sysconfig.get_paths()
    named = {paths["purelib"]: f"{_LIBRARY}/site-packages", paths["platlib"]: f"{_LIBRARY}/site-packages",
             paths["stdlib"]: _LIBRARY, paths["platstdlib"]: _LIBRARY, site.getuserbase(): "/home/user/.local",
             sys.prefix: "/usr", sys.base_prefix: "/usr", os.getcwd(): "/tmp", os.path.expanduser("~"): "/home/user",
             os.path.dirname(os.path.abspath(__file__)): "/tmp"}
    named |= {os.path.realpath(path): name for path, name in named.items()}
    return sorted(((path, name) for path, name in named.items() if len(path) > 4 and path != "/usr"),
                  key=lambda entry: (-len(entry[0]), entry[0]))


def unvarying(text: str) -> str:
    """`text` without what differs between machines and runs."""
    for path, name in places():
        text = text.replace(path, name)
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return text


def page(name: str) -> str:
    """The page of a module. Raises whatever importing it raises."""
    module = importlib.import_module(name)
    if not inspect.ismodule(module):
        raise ImportError(name)
    html = _Documentation()
    return unvarying(html.page(pydoc.describe(module), html.document(module)))


def render(name: str, folder: str, seconds: float) -> None:
    """Writes the page of a module from a forked process; ends that after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            text = page(name)
            path = os.path.join(folder, f"{name}.html")
            with open(path + ".tmp", "wb") as file:
                file.write(text.encode("utf-8", "replace"))
            os.replace(path + ".tmp", path)
        finally:
            os._exit(0)
    deadline, pause = time.monotonic() + seconds, 0.001
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    try:  # what it started, if anything
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    sys.argv[1:] = []
    pydoc.stripid = unvarying  # what it does to every repr before cutting it to a length
    warnings.simplefilter("ignore")
    for name in job["preload"]:
        try:
            importlib.import_module(name)
        except Exception:  # then its own page is absent, and each fork finds out for itself
            continue
    gc.freeze()  # a fork then copies fewer pages of memory
    for name in job["modules"]:
        render(name, job["folder"], job["seconds"])


if __name__ == "__main__":
    main(sys.argv[1])
