"""How checkpoints that others publish name the tensors of a net, and the scale of images that they expect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The names that another package gives to the parts of one of our nets, and its scale of images.

    Args:
        source: whose net it is, for messages.
        parts: (its prefix, our prefix) of each part, without the dot at the end.
        dropped: prefixes of what it has and our net has not.
        scale: factor of each channel of an image that `mibench.nets.classifier.center` has mapped to
            [-1, 1]; one number serves all channels.
        shift: what is added then.
    """

    source: str
    parts: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    scale: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    @property
    def is_centered(self) -> bool:
        """Whether it expects images in [-1, 1], as our nets do."""
        return set(self.scale) == {1.0} and set(self.shift) == {0.0}

    @property
    def heads(self) -> tuple[str, ...]:
        """Its prefixes of what tells people or things."""
        return tuple(f"{theirs}." for theirs, ours in self.parts if ours == "head")

    def names(self, own: Iterable[str]) -> dict[str, str]:
        """Published name -> our name, of our names `own` as far as they have a counterpart.

        >>> one = Published(source="a net", parts=(("features.0", "stages.0.0"),))
        >>> one.names(["stages.0.0.weight", "head.weight"])
        {'features.0.weight': 'stages.0.0.weight'}
        """
        return {
            f"{theirs}{name.removeprefix(ours)}": name
            for name in own
            for theirs, ours in self.parts
            if name.startswith(f"{ours}.")
        }


def imagenet_scale() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and shift of centered images for nets of torchvision.

    They expect (x - mean) / std for x in [0, 1], and x = (c + 1) / 2 for the centered c. Source of mean and
    std: torchvision's documentation of its classification weights.
    """
    scale = tuple(0.5 / std for std in _IMAGENET_STD)
    shift = tuple((0.5 - mean) / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD))
    return scale, shift
