"""What a suite's `[data]` table becomes: a source of three parts with disjoint people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from mibench.data.split import Labeled

Part = Literal["private", "public", "defender"]
PARTS: tuple[Part, ...] = ("private", "public", "defender")


class Source(Protocol):
    """Images by part; `private` has others to test on. Labels count from 0 in each part."""

    kind: ClassVar[str]
    version: ClassVar[int]

    @property
    def size(self) -> int:
        """Image height and width in pixels."""
        ...

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for gray."""
        ...

    @property
    def private(self) -> int:
        """Number of private people K."""
        ...

    def part_params(self, part: Part) -> dict[str, Any]:
        """All that the images of a part depend on, as JSON; no path."""
        ...

    def locator(self) -> dict[str, Any]:
        """What is needed to build the source again, as JSON, but is not part of any key: a path."""
        ...

    def beside(self, folder: Path) -> Source:
        """The same with relative paths taken from the folder of a suite file, and nothing left open."""
        ...

    def told(self) -> dict[str, Any]:
        """What a record says of the data beside its key, as JSON: names, terms; may be empty."""
        ...

    def identities(self) -> dict[Part, tuple[str, ...]]:
        """Names of the people of each part, in label order."""
        ...

    def load(self, part: Part) -> tuple[Labeled, Labeled | None]:
        """The images of a part to train on, and for `private` the test images."""
        ...
