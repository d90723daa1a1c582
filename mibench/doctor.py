"""What a machine offers, what is wrong with it, and how to mend that."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from mibench.benchmark import pick_jobs
from mibench.errors import MibenchError
from mibench.provenance import package_version
from mibench.registry import list_attacks, list_defenses, list_metrics
from mibench.remote_files import RemoteFiles
from mibench.store_root import local_folder, parse_root
from mibench.zoo import ZOO, manifest, zoo_file

Status = Literal["ok", "warn", "fail"]
_LEAST_FREE_GIB = 2.0  # a run of the quick suite fills about a tenth of it
_PACKAGES = ("torchvision", "opacus", "facenet-pytorch", "scipy", "pandas", "matplotlib", "loky")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: how it stands, about what, and what is found or to be done."""

    status: Status
    what: str
    text: str


def diagnose(store: Path | str) -> list[Finding]:
    """Versions, devices, threads, disk, store, plugins and zoo.

    Args:
        store: the store that runs would use, a folder or a URL.
    """
    place = parse_root(store)
    folder = local_folder(place)
    looks: dict[str, Callable[[], Finding]] = {
        "versions": _versions,
        "packages": _packages,
        "device": _device,
        "threads": _threads,
        "disk": lambda: _disk(folder),
        "store": lambda: _store(folder) if isinstance(place, Path) else _objects(place),
        "plugins": _plugins,
        "zoo": _zoo,
    }
    return [look() for look in looks.values()]


def _versions() -> Finding:
    text = f"mibench {package_version()}, torch {torch.__version__}, Python {platform.python_version()}, "
    return Finding("ok", "versions", text + f"{platform.system()} {platform.machine()}")


def _packages() -> Finding:
    """Whether the libraries are there, and torchvision fits torch."""
    missing = []
    for name in _PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = f"missing: {', '.join(missing)}. Run `pip install {' '.join(missing)}`."
        return Finding("fail", "packages", advice)
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:  # a CPU torch beside a CUDA torchvision raises RuntimeError
        advice = f"torchvision does not fit torch ({error}). Install both with one pip command."
        return Finding("fail", "packages", advice)
    return Finding("ok", "packages", f"{len(_PACKAGES)} libraries found; torchvision fits torch")


def _device() -> Finding:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("ok", "device", f"CUDA {torch.version.cuda}: {', '.join(names)}")
    if torch.version.cuda is None:
        text = "CPU: this torch is built without CUDA. Where there is a GPU, install a CUDA build of torch."
        return Finding("ok", "device", text)
    text = f"CPU: torch is built for CUDA {torch.version.cuda}, and finds no device. "
    return Finding("warn", "device", text + "If there is a GPU, look at `nvidia-smi` and the driver.")


def _threads() -> Finding:
    cores, threads = pick_jobs(torch.device("cpu")), os.environ.get("OMP_NUM_THREADS", "not set")
    text = f"{cores} cores for this process, OMP_NUM_THREADS {threads}; workers take one thread each"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 1.5 * cores:
        advice = f"{text}. {load:.1f} processes compete for them: times will not be typical."
        return Finding("warn", "threads", advice)
    return Finding("ok", "threads", text)


def _disk(store: Path) -> Finding:
    """Free space where the store is, or will be."""
    place = store.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    if not os.access(place, os.W_OK):
        return Finding("fail", "disk", f"{place} cannot be written to. Choose another folder with --out.")
    if free < _LEAST_FREE_GIB:
        advice = f"{free:.1f} GiB free at {place}. Make room, or choose another folder with --out."
        return Finding("warn", "disk", advice)
    return Finding("ok", "disk", f"{free:.1f} GiB free at {place}")


def _store(store: Path) -> Finding:
    """How full the store is, and what broken runs left in it."""
    if not store.is_dir():
        return Finding("ok", "store", f"{store} is not there yet; the first run makes it")
    kept = sum(1 for _ in store.glob("*/*/artifact.json"))
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 2**20
    corrupt = sum(1 for _ in store.glob("*/*.corrupt-*"))
    text = f"{store}: {kept} artifacts, {size:.0f} MiB"
    if corrupt:
        advice = f"{text}; {corrupt} corrupt ones were set aside and made again. Check the disk."
        return Finding("warn", "store", advice)
    return Finding("ok", "store", text)


def _objects(url: str) -> Finding:
    """Whether a store that is no folder answers, and how full it is."""
    try:
        files = RemoteFiles(url)
        names = files.names()
        if not names:
            files.check_bucket()
    except MibenchError as error:
        return Finding("fail", "store", str(error))
    corrupt = sum(1 for name in names if ".corrupt-" in name)
    kept = sum(1 for name in names if name.endswith("/artifact.json")) - corrupt
    text = f"{url}: {kept} artifacts"
    if corrupt:
        return Finding("warn", "store", f"{text}; {corrupt} corrupt ones were set aside and made again.")
    return Finding("ok", "store", text)


def _plugins() -> Finding:
    try:
        counts = [len(names()) for names in (list_attacks, list_defenses, list_metrics)]
    except MibenchError as error:
        return Finding("fail", "plugins", str(error))
    return Finding("ok", "plugins", "{} attacks, {} defenses, {} metrics".format(*counts))


def _zoo() -> Finding:
    """Whether the ready-made priors are whole."""
    entries = manifest(ZOO)
    try:
        for key in entries:
            zoo_file(key)
    except MibenchError as error:
        return Finding("fail", "zoo", str(error))
    text = f"{len(entries)} ready-made priors" if entries else "empty: every run trains its own priors"
    return Finding("ok", "zoo", text)
