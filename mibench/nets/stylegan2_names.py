"""Two published namings of StyleGAN2's tensors, read into the one of `mibench.nets.stylegan2`.

NVIDIA's stylegan2-ada-pytorch names layers by resolution (`synthesis.b8.conv0.affine.weight`), rosinality's
stylegan2-pytorch by place (`convs.0.conv.modulation.weight`) and keeps an axis of length 1 before weights.
Both store weights of unit scale and the same orientation of kernels.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.errors import WeightsError
from mibench.nets.stylegan2 import StyleGan2Generator, StyleGan2Shape
from mibench.weights import short

_ASK = "Give the tensors of a StyleGAN2 generator with skip connections; see docs/weights.md."
_MOST_LEVELS, _LEAST_LEVELS = 9, 4  # 1,024 and 32 pixels
_FILTERS = (".resample_filter", ".kernel")  # constants that both packages store beside the weights


@dataclass(frozen=True)
class Naming:
    """One package's name of each of our tensors.

    Args:
        source: whose it is, for messages.
        mark: a name that only this naming has.
        const: name of the constant map.
        w_avg: name of the mean w.
    """

    source: str
    mark: str
    const: str
    w_avg: str

    def mapping(self, layer: int) -> str:
        """Prefix of a layer of the mapping."""
        return f"mapping.fc{layer}" if self is NVIDIA else f"style.{layer + 1}"

    def layer(self, level: int, place: int) -> dict[str, str]:
        """Their names of the tensors of a layer by ours; `place` 0 enlarges."""
        if self is NVIDIA:
            at = f"synthesis.b{4 << level}.conv{place}"
            return {name: f"{at}.{name}" for name in _LAYER}
        index = 2 * (level - 1) + place
        at = f"convs.{index}" if level else "conv1"
        theirs = (
            f"{at}.conv.modulation.weight",
            f"{at}.conv.modulation.bias",
            f"{at}.conv.weight",
            f"{at}.activate.bias",
            f"{at}.noise.weight",
            f"noises.noise_{index + 1 if level else 0}",
        )
        return dict(zip(_LAYER, theirs))

    def torgb(self, level: int) -> dict[str, str]:
        """Their names of the tensors of a level's way to the picture by ours."""
        if self is NVIDIA:
            return {name: f"synthesis.b{4 << level}.torgb.{name}" for name in _TO_RGB}
        at = f"to_rgbs.{level - 1}" if level else "to_rgb1"
        theirs = (
            f"{at}.conv.modulation.weight",
            f"{at}.conv.modulation.bias",
            f"{at}.conv.weight",
            f"{at}.bias",
        )
        return dict(zip(_TO_RGB, theirs))


_LAYER = ("affine.weight", "affine.bias", "weight", "bias", "noise_strength", "noise_const")
_TO_RGB = _LAYER[:4]
NVIDIA = Naming("NVIDIA's stylegan2-ada-pytorch", "synthesis.b4.const", "synthesis.b4.const", "mapping.w_avg")
ROSINALITY = Naming("rosinality's stylegan2-pytorch", "input.input", "input.input", "latent_avg")


def names_of(shape: StyleGan2Shape, naming: Naming) -> Iterator[tuple[str, str]]:
    """(our name, their name) of each tensor of a generator."""
    yield "w_avg", naming.w_avg
    yield "const", naming.const
    for layer in range(len(shape.hidden) + 1):
        for part in ("weight", "bias"):
            yield f"fc.{layer}.{part}", f"{naming.mapping(layer)}.{part}"
    for level in range(len(shape.widths)):
        parts = {f"conv{place}": naming.layer(level, place) for place in ((0, 1) if level else (1,))}
        for part, names in {**parts, "torgb": naming.torgb(level)}.items():
            yield from ((f"levels.{level}.{part}.{ours}", theirs) for ours, theirs in names.items())


def generator_of(tensors: Mapping[str, Tensor], *, where: str) -> StyleGan2Generator:
    """The generator that published tensors make, of either naming, on the CPU.

    A file without a mean w (what rosinality's training leaves) gets zeros there.

    Args:
        tensors: by the names of NVIDIA's or rosinality's package.
        where: begins a message, for example `weights ffhq.pt`.

    Raises:
        WeightsError: another net; a tensor is missing, unexpected, misshaped or not finite.
    """
    naming = next((one for one in (NVIDIA, ROSINALITY) if one.mark in tensors), None)
    if naming is None:
        first = ", ".join(map(short, sorted(tensors)[:3])) or "none"
        raise WeightsError(
            f"{where}: has neither {NVIDIA.mark!r} nor {ROSINALITY.mark!r} (its first names: {first}). {_ASK}"
        )
    shape = _shape_of(tensors, naming, where)
    with torch.device("meta"):  # nothing is allocated for shapes that a bad file claims
        net = StyleGan2Generator(shape)
    like, names = net.state_dict(), dict(names_of(shape, naming))
    found = {}
    for name, published in names.items():
        if published not in tensors and published == ROSINALITY.w_avg:
            found[name] = torch.zeros(shape.w_dim)
            continue
        value = _get(tensors, published, where)
        found[name] = _fitted(value, like[name].shape, f"{where}: {short(published)}")
    for name in sorted(set(tensors) - set(names.values())):
        if not name.endswith(_FILTERS):
            raise WeightsError(
                f"{where}: {short(name)} is no part of the generator of {naming.source}. {_ASK}"
            )
    net.load_state_dict(found, assign=True)
    return net


def shape_of_own(state: Mapping[str, Tensor]) -> StyleGan2Shape:
    """The shape of a generator of ours by its state."""
    layers = sum(bool(re.fullmatch(r"fc\.\d+\.weight", name)) for name in state)
    levels = sum(bool(re.fullmatch(r"levels\.\d+\.torgb\.weight", name)) for name in state)
    return StyleGan2Shape(
        latent_dim=state["fc.0.weight"].shape[1],
        w_dim=len(state["w_avg"]),
        hidden=tuple(len(state[f"fc.{layer}.bias"]) for layer in range(layers - 1)),
        widths=tuple(state[f"levels.{level}.torgb.weight"].shape[1] for level in range(levels)),
        channels=len(state["levels.0.torgb.bias"]),
    )


def _shape_of(tensors: Mapping[str, Tensor], naming: Naming, where: str) -> StyleGan2Shape:
    """The shape of a published generator, read off its tensors, which may yet lack others."""
    layers = _count(lambda i: f"{naming.mapping(i)}.weight", tensors)
    levels = _count(lambda i: naming.torgb(i)["weight"], tensors)
    if layers == 0:
        raise WeightsError(f"{where}: {naming.mapping(0)}.weight is missing. {_ASK}")
    if any(name.startswith("mapping.embed.") for name in tensors):
        raise WeightsError(f"{where}: 'mapping.embed' tells it labels. Give a generator without labels.")
    if not _LEAST_LEVELS <= levels <= _MOST_LEVELS:
        last = naming.torgb(levels)["weight"]
        raise WeightsError(
            f"{where}: the picture ends at {4 << max(levels - 1, 0)} px, since {last!r} is missing; 32 to "
            f"1,024 px are known. {_ASK}"
        )
    fc = [_sides(tensors, f"{naming.mapping(i)}.weight", 2, where) for i in range(layers)]
    rgb = [_sides(tensors, naming.torgb(i)["weight"], 4, where) for i in range(levels)]
    return StyleGan2Shape(
        latent_dim=fc[0][1],
        w_dim=fc[-1][0],
        hidden=tuple(outputs for outputs, _ in fc[:-1]),
        widths=tuple(side[1] for side in rgb),
        channels=rgb[0][0],
    )


def _count(name: Callable[[int], str], tensors: Mapping[str, Tensor]) -> int:
    """How many names in a row, from number 0 on, are there."""
    return next(i for i in itertools.count() if name(i) not in tensors)


def _get(tensors: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    if name not in tensors:
        raise WeightsError(f"{where}: {short(name)} is missing. {_ASK}")
    return tensors[name]


def _sides(tensors: Mapping[str, Tensor], name: str, axes: int, where: str) -> tuple[int, ...]:
    """The lengths of the last `axes` axes of a weight."""
    shape = tuple(_get(tensors, name, where).shape)
    if len(shape) < axes or min(shape, default=0) < 1:
        raise WeightsError(f"{where}: {short(name)} has the shape {list(shape)}, needs {axes} axes. {_ASK}")
    return shape[-axes:]


def _fitted(value: Tensor, shape: torch.Size, place: str) -> Tensor:
    """The tensor as float32 in a shape that differs from its own in axes of length 1 at most."""
    if [side for side in value.shape if side != 1] != [side for side in shape if side != 1]:
        raise WeightsError(
            f"{place} has the shape {list(value.shape)}, the generator needs {list(shape)}. {_ASK}"
        )
    if not value.is_floating_point():
        raise WeightsError(f"{place} holds {value.dtype}, the generator needs floating-point numbers. {_ASK}")
    if not bool(torch.isfinite(value).all()):
        raise WeightsError(f"{place} holds NaN or infinite numbers. Fetch the file again.")
    return value.float().reshape(shape).contiguous()
