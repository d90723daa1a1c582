"""A fresh interpreter that inherits nothing of this one but a connection, and cannot look into it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mibench._families import ROOT

# what an interpreter and the math libraries read. Credentials and places of this process stay out
_KEPT = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT"})
_KEPT_STARTS = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "KMP_", "ATEN_", "DNNL_", "ONEDNN_", "CUDA", "CUBLAS_",
                "CUDNN_", "NVIDIA_", "PYTORCH_", "TORCH_")  # fmt: skip


def start(module: str, theirs: socket.socket, folder: str) -> subprocess.Popen[bytes]:
    """A fresh interpreter that runs a module; it has its end of a line, and what this one prints to.

    Args:
        module: run with the number of its end of the line, and that of this process.
        theirs: the end; open here still.
        folder: where it starts.
    """
    command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, cwd=folder, env=_environment(), pass_fds=(theirs.fileno(),)
    )


def _environment() -> dict[str, str]:
    """Variables for the other process: where packages lie, and what libraries read."""
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_STARTS)
    }
    paths = [str(ROOT), *(str(Path(path).absolute()) for path in sys.path if path)]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def unreadable() -> Iterator[None]:
    """Inside, processes of the same user cannot read this one's memory, files or variables; Linux alone.

    The kernel then gives /proc/<pid> to root, and refuses ptrace and core dumps (prctl(2), PR_SET_DUMPABLE).
    """
    before = _dumpable(None)
    if before is None:
        yield
        return
    _dumpable(0)
    try:
        yield
    finally:
        _dumpable(before)


def _dumpable(value: int | None) -> int | None:
    """Set whether this process may be looked into, or with None ask; None where no system call does it."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    get_dumpable, set_dumpable = 3, 4  # linux/prctl.h
    control = ctypes.CDLL(None).prctl
    found = control(get_dumpable, 0, 0, 0, 0) if value is None else control(set_dumpable, value, 0, 0, 0)
    return int(found) if found >= 0 else None


__all__ = ["start", "unreadable"]
