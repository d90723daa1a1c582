"""Where a number was computed: versions and hardware, without names of machines or people."""

from __future__ import annotations

import platform
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mibench._families import ROOT

if TYPE_CHECKING:
    import torch


@cache
def package_version() -> str:
    """The version of mibench; of the checkout where it is not installed."""
    try:
        return version("mibench")
    except PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, platform, device and number of threads, as JSON."""
    import torch  # here, so that who asks for the version alone does not wait for it

    return {
        "mibench": package_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }
