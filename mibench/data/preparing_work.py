"""A preparation at work: each person's files are read, written or left out, and the place is noted."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from mibench.data.damage import sha256_of
from mibench.data.prepared import IMAGES, MANIFEST, SKIPPED, SetInfo
from mibench.data.preparing_images import Made, Workshop
from mibench.data.preparing_plan import Person, Plan, Planned
from mibench.data.preparing_state import (
    GROWING,
    PartFolder,
    Position,
    Progress,
    clear,
    csv_lines,
    written_digests,
)
from mibench.data.spelling import spelled
from mibench.errors import DataError

SAME_PERSON = "same bytes as another image of this identity"
SAME_BYTES = "same bytes as an image of another identity"
ENOUGH_IMAGES = "beyond --max-images of its identity"
ENOUGH_PEOPLE = "its identity is beyond --identities"
TOO_FEW = "its identity has too few images"
_SAVE_IMAGES, _SAVE_S = 512, 5.0  # work that a kill may cost, in rows or seconds
_REASONS = 6  # named in an error

OnProgress = Callable[[int, int, int], None]
OnNote = Callable[[str], None]


class Work:
    """One preparation at work: what has been counted, and up to where it is safe.

    Args:
        plan: what to look at.
        part: the folder of the unfinished set, locked.
        old: where an earlier process stopped; None begins.
        replaces: whether the set will take the place of another one.
        on_progress: called with files read, files to read, and rows written.

    Raises:
        DataError: the unfinished set is damaged.
    """

    def __init__(
        self, plan: Plan, part: Path, old: Position | None, *, replaces: bool, on_progress: OnProgress
    ) -> None:
        self.plan, self.part, self.replaces, self.on_progress = plan, part, replaces, on_progress
        self.made_with = versions(plan)
        found = self.saved = self.mark = old or Position()
        self.people, self.read = found.people, found.read
        self.images, self.identities = found.images, found.identities
        self.skipped, self.converted = Counter(found.skipped), Counter(found.converted)
        self.seen: set[bytes] = set()
        self.saved_at = time.monotonic()
        self.folder = PartFolder(part, (plan.channels, plan.size, plan.size))
        with self._whole():
            if old is None:
                self._begin()
            else:
                self.folder.cut(old.sizes)
                self.seen = {_short(digest) for digest in written_digests(part)}

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Cut the files back to the last whole person on any error, and save what is whole."""
        try:
            yield
        except BaseException:
            try:
                with contextlib.suppress(OSError, ValueError, DataError):
                    if self.mark.sizes:
                        self.folder.cut(self.mark.sizes)
                        self._save()
            finally:
                self.folder.close()
            raise

    def _begin(self) -> None:
        self.folder.begin()
        self._skip((skip.name, spelled(skip.reason)) for skip in self.plan.skips)
        self._mark()
        self._save()

    def run(self) -> SetInfo:
        """Deal with every person that is left, and write the last file of the set.

        Raises:
            DataError: a file has changed or gone, or fewer than two identities are left.
        """
        with self._whole():
            todo = self.plan.people[self.people :]
            with Workshop(self.plan) as shop, closing(shop.in_order(self._first_files(todo))) as made:
                for person in todo:
                    self._person(person, made, shop)
                    self.people += 1
                    self._mark()
                    if self._is_due():
                        self._save()
            self._check_enough()
            self._save()
            self.folder.end_images(self.images)
            info = self._info()
            self.folder.finish(info)
            return info

    def _is_full(self) -> bool:
        return self.identities == self.plan.request.identities

    def _first_files(self, people: tuple[Person, ...]) -> Iterator[Planned]:
        """Files that can be read ahead, whatever becomes of those before them."""
        for person in people:
            if self._is_full():
                return
            yield from self.plan.first_files(person)

    def _person(self, person: Person, made: Iterator[Made], shop: Workshop) -> None:
        """Deal with all files of a person: write them, or say why not."""
        plan = self.plan
        if self._is_full() or plan.is_small(person):
            reason = ENOUGH_PEOPLE if self._is_full() else TOO_FEW
            self._skip((planned.item.name, reason) for planned in person.files)
            return
        most = plan.request.max_images or len(person.files)
        looked, kept = 0, 0
        waiting: list[Made] = []  # until it is sure that the person has enough
        own: set[bytes] = set()
        results: Iterator[Made] = islice(made, len(plan.first_files(person)))
        while True:
            for one in results:
                looked, self.read = looked + 1, self.read + 1
                if reason := one.reason or self._repeated(one, own):
                    self._skip([(one.item.name, reason)])
                    continue
                kept += 1
                waiting.append(one)
                if kept >= plan.request.min_images:
                    self._write(waiting)
                    waiting.clear()
            if kept == most or looked == len(person.files):
                break
            results = shop.in_order(person.files[looked : looked + most - kept])
        self._skip((one.item.name, TOO_FEW) for one in waiting)
        self._skip((planned.item.name, ENOUGH_IMAGES) for planned in person.files[looked:])
        if not waiting and kept:
            self.seen |= own
            self.identities += 1

    def _repeated(self, made: Made, own: set[bytes]) -> str:
        """Why a file is left out whose bytes have been met; empty for new ones, which are remembered."""
        assert made.decoded is not None
        digest = _short(made.decoded.sha256)
        if digest in own:
            return SAME_PERSON
        if digest in self.seen:
            return SAME_BYTES
        own.add(digest)
        return ""

    def _write(self, made: list[Made]) -> None:
        """Append rows of one person."""
        self.folder.append(IMAGES, b"".join(one.pixels for one in made))
        lines = []
        for row, one in enumerate(made, self.images):
            item, decoded = one.item, one.decoded
            assert decoded is not None
            told = (decoded.sha256, decoded.width, decoded.height, decoded.mode)
            lines.append((row, spelled(item.identity), spelled(item.name), *told))
            self.converted.update(decoded.converted)
        self.folder.append(MANIFEST, csv_lines(lines))
        self.images += len(made)

    def _skip(self, files: Iterable[tuple[str, str]]) -> None:
        told = list(files)
        if told:
            self.folder.append(SKIPPED, csv_lines((spelled(name), reason) for name, reason in told))
            self.skipped.update(reason for _, reason in told)

    def _mark(self) -> None:
        """Note that everything up to here is whole: a person has ended."""
        self.mark = Position(
            people=self.people,
            read=self.read,
            images=self.images,
            identities=self.identities,
            skipped=dict(sorted(self.skipped.items())),
            converted=dict(sorted(self.converted.items())),
            sizes=dict(self.folder.sizes),
        )
        self.on_progress(self.read, self.plan.total, self.images)

    def _is_due(self) -> bool:
        """Whether enough has been written since the place was noted on the disk."""
        return self.images - self.saved.images >= _SAVE_IMAGES or time.monotonic() - self.saved_at >= _SAVE_S

    def _save(self) -> None:
        plan = self.plan
        row_bytes = sum(self.mark.sizes.values()) / max(1, self.mark.read)
        total = max(plan.total, self.mark.read)
        self.folder.save(
            Progress(
                options=plan.options,
                made_with=self.made_with,
                command=plan.request.command(),
                layout=plan.request.layout.facts.name,
                replaces=self.replaces,
                done=self.mark.read,
                total=total,
                bytes_left=round(row_bytes * (total - self.mark.read))
                if self.mark.read
                else plan.bytes_needed,
                position=self.mark,
            )
        )
        self.saved, self.saved_at = self.mark, time.monotonic()

    def _check_enough(self) -> None:
        """Raise DataError, and leave nothing behind, where fewer than two identities have images."""
        if self.identities >= 2:
            return
        told = [f"{count:,} {reason}" for reason, count in self.skipped.most_common(_REASONS)]
        self.mark = Position()
        clear(self.part)
        raise DataError(
            f"prepare {self.plan.request.layout.facts.name}: {self.identities} of {len(self.plan.people):,} "
            f"identities have usable images, and a set needs 2. Left out: {'; '.join(told) or 'nothing'}. "
            "Mend the files, or ask for less."
        )

    def _info(self) -> SetInfo:
        request, facts = self.plan.request, self.plan.request.layout.facts
        return SetInfo(
            name=request.name,
            layout=facts.name,
            title=facts.title,
            home=facts.home,
            terms=request.licence or facts.set_terms or facts.terms,
            citation=facts.citation,
            may_publish=request.may_publish or facts.may_publish,
            has_identities=facts.has_identities,
            size=self.plan.size,
            channels=self.plan.channels,
            images=self.images,
            identities=self.identities,
            options=self.plan.options,
            skipped=self.mark.skipped,
            converted=self.mark.converted,
            files={
                name: {"sha256": sha256_of(self.part / name), "bytes": self.folder.sizes[name]}
                for name in GROWING
            },
            made_with=self.made_with,
        )


def versions(plan: Plan) -> dict[str, str]:
    """Versions of all that has a say in the pixels of a plan, by package."""
    from mibench.provenance import package_version

    packages = ["numpy", "pillow"]
    if plan.request.align != "none":
        packages.append("scipy")
    if plan.request.align == "mtcnn":
        packages += ["facenet-pytorch", "torch"]
    return {"mibench": package_version(), **{name: version(name) for name in packages}}


def check_space(plan: Plan, part: Path, written: int) -> str:
    """A warning where the disk may be too small for a plan; empty where it is not.

    Args:
        plan: what to look at.
        part: folder of the unfinished set.
        written: bytes that lie there already.

    Raises:
        DataError: it is too small even if half of the files turn out to be unusable.
    """
    need, free = plan.bytes_needed - written, shutil.disk_usage(part).free
    if need <= free:
        return ""
    told = f"the set takes up to {told_bytes(need)}, {told_bytes(free)} are free"
    if need <= 2 * free:
        return f"{told}; it is finished all the same if enough files turn out to be unusable"
    raise DataError(
        f"prepare {plan.request.layout.facts.name}: {told}. Free some, give another folder by --to, or ask "
        "for less by --max-images, --identities or --size."
    )


def told_bytes(count: int) -> str:
    """A number of bytes in the unit that it has some of.

    >>> told_bytes(3_400_000_000), told_bytes(2_500_000), told_bytes(900)
    ('3.4 GB', '2.5 MB', '0.9 kB')
    """
    unit, size = next((one for one in (("GB", 1e9), ("MB", 1e6)) if count >= one[1]), ("kB", 1e3))
    return f"{count / size:,.1f} {unit}"


def _short(digest: str) -> bytes:
    """Half of a SHA-256, which is enough to tell files apart, and there may be millions."""
    return bytes.fromhex(digest)[:16]
