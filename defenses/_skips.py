"""Identity shortcuts of a classifier's last stage, weakened or removed."""

from __future__ import annotations

import copy

from mibench.nets import CLASSIFIERS, NetSpec, last_skips
from mibench.nets.classifier import Classifier

_WITH_SKIPS = ", ".join(name for name, kind in CLASSIFIERS.items() if kind.has_last_skip)


def lacks_skips(net: NetSpec) -> str:
    """What is wrong with a net whose last stage has no identity shortcut, and what to do; else empty."""
    if net.name in CLASSIFIERS and CLASSIFIERS[net.name].has_last_skip:
        return ""
    return (
        f"net '{net.name}' has no identity shortcut in its last stage. "
        f"Choose a residual victim: {_WITH_SKIPS}."
    )


def scaled(net: Classifier, k: float, *, where: str) -> Classifier:
    """A copy of the net whose last identity shortcuts z count k z, in all passes from now on.

    Args:
        net: stays as it is.
        k: what is kept of each shortcut, in [0, 1]; 1 changes nothing, bit for bit.
        where: name of the defense, for the error.

    Raises:
        ValueError: the net has no such shortcut; the sentence of `lacks_skips`.
    """
    copied = copy.deepcopy(net)
    set_scale(copied, k, where=where)
    return copied


def set_scale(net: Classifier, k: float, *, where: str) -> None:
    """Let the last identity shortcuts of the net count k times, in place; see `scaled`."""
    blocks = last_skips(net)
    if not blocks:
        raise ValueError(f"{where}: {lacks_skips(net.spec)}")
    for block in blocks:
        block.skip_scale = k
