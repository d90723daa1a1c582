"""Classifiers that start from the weights of a user's file, under our names or published ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from mibench.errors import WeightsError
from mibench.nets import Classifier, NetSpec, build
from mibench.nets.published import Published
from mibench.weights import read_checkpoint, short, weights_digest

Use = Literal["features", "start", "ready"]

_HEAD = "head."
_COUNTER = "num_batches_tracked"  # of batch norm, which our nets never read
# a state of ours holds them where its net began with published weights
_INPUT = ("input_scale", "input_shift")


def start_from(net: Classifier, tensors: Mapping[str, Tensor], *, use: Use, where: str) -> None:
    """Give a net the weights of a file, and the scale of images that they expect.

    What a published net lacks (the feature's norm of `vgg16_bn`) stays as it was drawn.

    Args:
        net: changed in place; untouched where anything does not fit.
        tensors: by our names, or by those of `net.published()`.
        use: "features" leaves the head as it was drawn; "start" and "ready" take it from the file.
        where: begins a message, for example `weights vgg16.pth`.

    Raises:
        WeightsError: a tensor is missing, unexpected, misshaped, of another type or not finite; or the file
            has no head for these people.
    """
    kind, own = net.spec.name, net.state_dict()
    published = _naming(net, tensors)
    names = {name: name for name in own} if published is None else published.names(own)
    names = {
        theirs: ours for theirs, ours in names.items() if use != "features" or not ours.startswith(_HEAD)
    }
    if use != "features" and not any(ours.startswith(_HEAD) for ours in names.values()):
        raise WeightsError(
            f"{where}: {published.source if published else kind} has no head that tells people. Leave "
            "weights_as at 'features'."
        )
    found: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        if theirs in tensors:
            found[ours] = _checked(tensors[theirs], own[ours], f"{where}: {short(theirs)}", kind)
        elif not theirs.endswith(_COUNTER):
            raise WeightsError(
                f"{where}: {short(theirs)} of {kind} is missing. Give weights of that network."
            )
    scale = {} if published else _input_map(net, tensors, where)
    _refuse_others(set(tensors) - set(names) - set(scale), published, use, kind, where)
    net.load_state_dict({**own, **found, **scale})
    if published is not None and not published.is_centered:
        net.set_input_map(published.scale, published.shift)


def checked_digest(path: str, spec: NetSpec, use: Use) -> str:
    """SHA-256 of a weights file, in hexadecimal, after a net of that architecture took its weights.

    Raises:
        WeightsError: the file cannot be read or does not fit; see `start_from`.
    """
    digest = weights_digest(path)
    _check(path, digest, spec, use)
    return digest


@lru_cache(maxsize=32)
def _check(path: str, digest: str, spec: NetSpec, use: Use) -> None:
    net = build(spec, torch.Generator())
    start_from(net, read_checkpoint(path, digest=digest), use=use, where=f"weights {path}")


def _naming(net: Classifier, tensors: Mapping[str, Tensor]) -> Published | None:
    """The published naming, where more of the file's names are of it than of our own."""
    published, own = net.published(), net.state_dict()
    if published is None:
        return None
    theirs = published.names(own)
    return (
        published if sum(name in theirs for name in tensors) > sum(name in own for name in tensors) else None
    )


def _input_map(net: Classifier, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The scale of images in a state of ours; empty where it has none, or the net would not read it."""
    found = {name: tensors[name] for name in _INPUT if name in tensors and net.published() is not None}
    for name, value in found.items():
        sizes = [(1, 1, 1), (net.spec.channels, 1, 1)]
        like = torch.empty(sizes[len(value.flatten()) > 1])
        _checked(value, like, f"{where}: {short(name)}", net.spec.name)
    if len(found) == 1:
        raise WeightsError(f"{where}: {_INPUT[_INPUT[0] in found]!r} is missing. Give both or neither.")
    return found


def _checked(value: Tensor, like: Tensor, place: str, kind: str) -> Tensor:
    """The tensor, if it may stand for one of the net's."""
    if value.shape != like.shape:
        raise WeightsError(
            f"{place} has the shape {list(value.shape)}, {kind} needs {list(like.shape)}. Give weights of "
            "that network, of its width, for images of these channels and for these people."
        )
    if value.is_floating_point() != like.is_floating_point() or value.is_complex():
        raise WeightsError(f"{place} holds {value.dtype}, {kind} needs {like.dtype}. Give plain weights.")
    if not bool(torch.isfinite(value).all()):
        raise WeightsError(f"{place} holds NaN or infinite numbers. Fetch the file again, or train anew.")
    return value


def _refuse_others(names: set[str], published: Published | None, use: Use, kind: str, where: str) -> None:
    """Raise WeightsError for the first name that is neither the net's nor known to be left out."""
    heads = (_HEAD,) if published is None else published.heads
    left_out = (*(() if published is None else published.dropped), *(heads if use == "features" else ()))
    for name in sorted(names):
        if not name.startswith(left_out):
            examples = "" if published is None else f", under the names of {published.source}"
            raise WeightsError(
                f"{where}: {short(name)} is no part of {kind}{examples}. Give weights of that network alone."
            )
