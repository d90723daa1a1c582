"""From an image file to the bytes of a row, several files at once, in the order that was asked for."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from mibench.data.decode import Decoded, UnusableImageError, decode
from mibench.data.fitting import face_square, middle_square, padded, search_area
from mibench.data.layouts.layout import Item, Points
from mibench.data.preparing_plan import Plan, Planned
from mibench.data.spelling import spelled
from mibench.errors import DataError

if TYPE_CHECKING:
    from mibench.data.align import FaceFinder

NO_FACE, NO_POINTS, NO_SHAPE = "no face found", "no landmarks", "landmarks that make no face"
_AHEAD = 4  # decoded images that wait for their turn, for each thread


@dataclass(frozen=True)
class Made:
    """What became of a file.

    Args:
        item: the file.
        reason: why it is left out; empty where it is not.
        pixels: (C, size, size), uint8, as bytes.
        decoded: what is known of the file, with what is kept of its image; None where it is left out.
    """

    item: Item
    reason: str
    pixels: bytes = b""
    decoded: Decoded | None = None


class Workshop:
    """Threads that decode, align and resize. Use it as a context manager.

    Threads and not processes: Pillow and the digest work outside the interpreter's lock, and handing the
    bytes of an image to another process takes longer than what is left inside it.

    Args:
        plan: says how.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._finders: SimpleQueue[FaceFinder] = SimpleQueue()
        if plan.request.align == "mtcnn":
            import torch

            from mibench.data.align import FaceFinder

            # one for each thread, and all of them made here: building a net touches the global random state
            for _ in range(plan.request.jobs):
                self._finders.put(FaceFinder(torch.device(plan.request.device)))
        self._pool = ThreadPoolExecutor(plan.request.jobs, thread_name_prefix="prepare")

    def __enter__(self) -> Self:
        """The workshop itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the images that are at work, and drop those that wait."""
        self._pool.shutdown(cancel_futures=True)

    def in_order(self, files: Iterable[Planned]) -> Generator[Made, None, None]:
        """What becomes of each file, in order; only a few more than were asked for are read.

        Raises:
            DataError: a file has changed or gone since the plan was made.
        """
        waiting: deque[Future[Made]] = deque()
        try:
            for planned in files:
                waiting.append(self._pool.submit(self.make, planned))
                if len(waiting) >= _AHEAD * self.plan.request.jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def make(self, planned: Planned) -> Made:
        """What becomes of one file.

        Raises:
            DataError: it has changed or gone since the plan was made.
        """
        item = planned.item
        try:
            self._check_unchanged(planned)
            decoded = decode(item.file, channels=self.plan.channels, max_bytes=self.plan.max_bytes)
            square = self._square(item, decoded.image)
        except UnusableImageError as error:
            self._check_unchanged(planned)  # of a file that went away meanwhile that is the reason
            return Made(item, error.reason)
        self._check_unchanged(planned)
        rows = np.asarray(square).reshape(self.plan.size, self.plan.size, -1)
        pixels = rows.transpose(2, 0, 1).tobytes()
        # a whole photo is not kept while it waits for its turn
        return Made(item, "", pixels, dataclasses.replace(decoded, image=square))

    def _square(self, item: Item, image: Image.Image) -> Image.Image:
        """The part of an image that is kept, in its final size."""
        size, request = self.plan.size, self.plan.request
        if request.align != "none":
            from mibench.data.align import aligned

            points = item.landmarks if request.align == "landmarks" else self._found(item, image)
            if points is None:
                raise UnusableImageError(NO_POINTS if request.align == "landmarks" else NO_FACE)
            try:
                return aligned(image, points, size=size)
            except DataError as error:
                raise UnusableImageError(NO_SHAPE) from error
        if request.fit == "pad":
            return padded(image, size=size)
        if request.crop is None and item.box is not None:
            return face_square(image, item.box, size=size)
        return middle_square(image, size=size, crop=self.plan.crop)

    def _found(self, item: Item, image: Image.Image) -> Points | None:
        """Points of the main face, near the item's box where it has one."""
        area = (0, 0, *image.size) if item.box is None else search_area(image, item.box)
        finder = self._finders.get()
        try:
            points = finder.find(image.crop(area).convert("RGB"))
        finally:
            self._finders.put(finder)
        return None if points is None else tuple((x + area[0], y + area[1]) for x, y in points)

    def _check_unchanged(self, planned: Planned) -> None:
        """Raise DataError where a file is not what it was when the plan was made."""
        if planned.is_unchanged():
            return
        raise DataError(
            f"image {spelled(str(planned.item.file))}: has changed or gone since the preparation began. Put "
            "it back as it was and give the same command again, or begin anew with --restart."
        )
