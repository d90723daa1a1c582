"""Which classifier a table of a suite names, how it is trained, and which space of faces it may give."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict

from mibench.data.source import Source
from mibench.embedder import PRETRAINED
from mibench.nets import CLASSIFIERS, NetSpec, build
from mibench.starting import Use, checked_digest
from mibench.training import Recipe
from mibench.weights import weights_digest

_FORBID = ConfigDict(extra="forbid")


def unknown(word: str, name: str, known: Mapping[str, object] | list[str]) -> str:
    """A sentence that says that there is no such thing, with a close name and all that there are."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown {word} '{name}'.{hint} There are: {', '.join(known)}."


def inherited(victim: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What a public net's table takes from the victim's; of its weights the features, for the same net.

    Args:
        victim: the victim's table as parsed.
        values: the public net's own.
    """
    is_same = values.get("net", victim.get("net")) == victim.get("net")
    left_out = {"weights_as"} if is_same else {"weights_as", "weights"}
    return {name: value for name, value in victim.items() if name not in left_out}


@dataclass(frozen=True, kw_only=True)
class NetChoice:
    """A classifier of the suite: architecture and training.

    Args:
        net: name in `mibench.nets.CLASSIFIERS`.
        width: channels of the first stage; 0 takes the architecture's published width.
        recipe: how it is trained.
        min_accuracy: test accuracy of a judge in [0, 1] below which its records are flagged.
        weights: file with weights that training starts from, under our names or published ones; empty starts
            at random.
        weights_as: "features" takes all but the head, which starts at random; "start" takes the head too;
            "ready" takes the head and trains nothing, so the order of the file's classes must be that of the
            people. A defense that trains the net starts from the file either way.
    """

    net: str
    width: int = 0
    recipe: Recipe = field(default_factory=Recipe)
    min_accuracy: float = 0.0
    weights: str = ""
    weights_as: Use = "features"
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if self.net not in CLASSIFIERS:
            raise ValueError(unknown("network", self.net, CLASSIFIERS))
        if self.width < 0:
            raise ValueError(f"width must be >= 0, got {self.width}.")
        if not 0 <= self.min_accuracy <= 1:
            raise ValueError(f"min_accuracy must lie in [0, 1], got {self.min_accuracy}.")
        if self.weights_as != "features" and not self.weights:
            raise ValueError(f"weights_as is '{self.weights_as}', and no weights are given. Name the file.")

    def of_others(self) -> NetChoice:
        """The choice for a net that tells other people: the file's head is none of theirs."""
        return dataclasses.replace(self, weights_as="features")

    def table(self) -> dict[str, Any]:
        """The fields as a suite's table, those of a file only where there is one."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if self.weights or "weights" not in name}

    def locator(self) -> dict[str, Any]:
        """Where a worker finds the weights file; beside the key, which holds its digest."""
        return {"start": self.weights} if self.weights else {}

    def spec(self, data: Source, num_classes: int) -> NetSpec:
        """The architecture for the images of some data."""
        return NetSpec(
            name=self.net,
            width=self.width,
            channels=data.channels,
            size=data.size,
            num_classes=num_classes,
        )

    def params(self, data: Source, num_classes: int) -> dict[str, Any]:
        """Architecture, recipe and digest of the weights to start from, if any, as parameters of a task.

        Raises:
            WeightsError: the file cannot be read or does not fit the architecture.
        """
        spec = self.spec(data, num_classes)
        plain = {"net": dataclasses.asdict(spec), "recipe": dataclasses.asdict(self.recipe)}
        if not self.weights:
            return plain
        digest = checked_digest(self.weights, spec, self.weights_as)
        return {**plain, "start": {"weights": digest, "use": self.weights_as}}

    def check(self, table: str, data: Source, num_classes: int) -> None:
        """Raise ValueError, with the table, where the architecture cannot take these images."""
        try:
            # built for good: torch's meta device would be lighter, but its first use imports for seconds
            build(self.spec(data, num_classes), torch.Generator())
        except ValueError as error:
            raise ValueError(f"{table}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class EmbedderChoice(NetChoice):
    """A space of faces that knows nobody private: features of a classifier of the defender's people.

    Args:
        weights: file with ready weights of `inception_resnet_v1` (facenet-pytorch's); empty trains the net.
        min_accuracy: share of private test images in [0, 1] that must lie nearest to their own person's
            centroid; records are flagged below it.
        weights_as: is not for a space of faces.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights_as != "features":
            raise ValueError("weights_as is not for a space of faces, whose weights are ready. Leave it out.")
        if self.weights and self.net != PRETRAINED:
            raise ValueError(
                f"weights are read for net '{PRETRAINED}' alone, got '{self.net}'. Leave them out."
            )
        if self.weights and (self.width or self.recipe != Recipe()):
            raise ValueError(
                "width and recipe train a net, and weights are those of a trained one. Leave one out."
            )

    def table(self) -> dict[str, Any]:
        """The fields as a suite's table."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "weights_as"}

    def task_params(self, data: Source, people: int) -> dict[str, Any]:
        """Parameters of the task that makes it; ready weights are named by their content, never by a path.

        Args:
            data: gives the image size and channels.
            people: number of the defender's people.

        Raises:
            WeightsError: the file cannot be read.
        """
        if not self.weights:
            return self.params(data, people)
        shape = {"name": self.net, "channels": data.channels, "size": data.size}
        return {"net": shape, "weights": weights_digest(self.weights)}
