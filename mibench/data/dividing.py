"""Draws who is private, who is the attacker's and who the defender's public, once and for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mibench.atomic import write_atomically
from mibench.data.prepared import AGAIN, PreparedSet
from mibench.data.source import PARTS, Part
from mibench.data.split_file import Person, SplitFile, SplitPart, link_to, part_digest
from mibench.errors import DataError
from mibench.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a split is drawn.

    Args:
        private: people that the victim knows, >= 2.
        public: people (or single images, where a set does not say who is on them) of the attacker; 0 takes
            all that are left, or half of them where the defender's number is 0 too and the set is the same.
        defender: people on the defender's public images; 0 as for `public`.
        test_images: images of each private person kept for testing, >= 1; 0 takes `test_fraction`.
        test_fraction: share of each private person's images kept for testing, in (0, 1).
        min_images: images that a private person must have at the least; 0 asks for one to train and one to
            test (or `test_images`).
        min_defender_images: images that a person of the defender must have at the least, >= 1.
        choose: `random` draws private people; `most` takes those with most images, as the papers do.
        seed: of every draw.
    """

    private: int
    public: int = 0
    defender: int = 0
    test_images: int = 0
    test_fraction: float = 0.2
    min_images: int = 0
    min_defender_images: int = 1
    choose: Literal["random", "most"] = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("private", 2), ("public", 0), ("defender", 0), ("test_images", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise DataError(f"split: {name} must be >= {least}, got {getattr(self, name)}. Change it.")
        if not 0 < self.test_fraction < 1:
            raise DataError(f"split: test_fraction must lie in (0, 1), got {self.test_fraction}. Change it.")
        if self.defender == 1:
            raise DataError("split: a classifier of the defender's people needs two, got 1. Give 2 or more.")

    @property
    def least(self) -> int:
        """Images that a private person needs."""
        return max(self.min_images, (self.test_images or 1) + 1)


def divide(
    division: Division, private: PreparedSet, public: PreparedSet, defender: PreparedSet, *, file: Path
) -> SplitFile:
    """A split of prepared sets, for a file at `file`; nothing is written.

    Private people are drawn first, then the defender's, then the attacker's: no identity of a set is drawn
    twice, and nobody of whom another set has a file, byte for byte, that an earlier part has. The three sets
    may be the same.

    Raises:
        DataError: too few people, two sets of one name, one set of two names, other sizes or channels, or a
            set that does not say who is on its images where people are needed.
    """
    sets = dict(zip(PARTS, (private, public, defender)))
    _check_sets(sets)
    taken: dict[str, set[str]] = {one.info.name: set() for one in sets.values()}
    files = {one.info.name: _files_of(one) for one in sets.values()} if len(taken) > 1 else {}
    used: set[bytes] = set()
    drawn: dict[Part, tuple[Person, ...]] = {}
    for part in ("private", "defender", "public"):
        info = sets[part].info
        own = files.get(info.name, [])
        rows = {
            name: got
            for name, got in sets[part].rows_of.items()
            if name not in taken[info.name] and used.isdisjoint(own[got.start : got.stop])
        }
        names = _draw(division, part, rows, sets)
        taken[info.name] |= set(names)
        used.update(*(own[rows[name].start : rows[name].stop] for name in names))
        drawn[part] = tuple(_person(division, part, name, rows[name]) for name in names)
    return SplitFile(
        size=private.info.size,
        channels=private.info.channels,
        sets={one.info.name: link_to(one, file) for one in sets.values()},
        parts={
            part: SplitPart(
                set_name=sets[part].info.name,
                people=drawn[part],
                digest=part_digest(sets[part].pixels, drawn[part]),
            )
            for part in PARTS
        },
        options=dataclasses.asdict(division),
    )


def write_split(split: SplitFile, file: Path, *, force: bool = False) -> None:
    """Write a split whole or not at all; one that lies there already and says the same stays.

    Raises:
        DataError: another split lies there and `force` is not given, or the file cannot be written.
    """
    text = split.to_json()
    try:
        if file.exists() and not force:
            if file.read_text(encoding="utf-8") == text:
                return
            raise DataError(
                f"split {file}: another split lies there, and results may name it. Choose another --name, or "
                "replace it with --force."
            )
        write_atomically(file, text.encode())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"split {file}: cannot be written ({_why(error)}). Choose another place by --to."
        ) from error


def _why(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError):
        return error.strerror or "unknown error"
    return "what lies there is no text"


def _check_sets(sets: dict[Part, PreparedSet]) -> None:
    private = sets["private"]
    for part, one in sets.items():
        for name, wanted in (("size", private.info.size), ("channels", private.info.channels)):
            if getattr(one.info, name) != wanted:
                raise DataError(
                    f"split: the {part} set {one.root} has {name} {getattr(one.info, name)}, the private set "
                    f"{private.root} {wanted}. Prepare them alike."
                )
        for other in sets.values():
            if one.info.name == other.info.name and one.info.digest != other.info.digest:
                raise DataError(
                    f"split: {one.root} and {other.root} are two sets called '{one.info.name}'. Prepare one "
                    "of them under another --name."
                )
            if one.info.name != other.info.name and one.info.digest == other.info.digest:
                raise DataError(
                    f"split: {one.root} and {other.root} hold the same images of the same people, called "
                    f"'{one.info.name}' and '{other.info.name}'. Give one of them alone."
                )
        if part != "public" and not one.info.has_identities:
            raise DataError(
                f"split: the {part} set {one.root} does not say who is on an image ({one.info.title}). Take "
                "it for the public part alone."
            )


def _files_of(found: PreparedSet) -> list[bytes]:
    """Half of the SHA-256 of the file behind each row: enough to tell files apart.

    Raises:
        DataError: the manifest cannot be read.
    """
    try:
        return [bytes.fromhex(line["sha256"])[:16] for line in found.manifest()]
    except ValueError as error:
        raise DataError(
            f"split: the manifest in {found.root} holds what is no SHA-256 ({error}). {AGAIN}"
        ) from error


def _draw(division: Division, part: Part, rows: dict[str, range], sets: dict[Part, PreparedSet]) -> list[str]:
    """Names of a part's people, in label order."""
    least = {"private": division.least, "defender": division.min_defender_images, "public": 1}[part]
    fit = [name for name, got in rows.items() if len(got) >= least]
    fit.sort(key=lambda name: derive_seed(division.seed, "person", name))
    if part == "private" and division.choose == "most":
        fit.sort(key=lambda name: -len(rows[name]))  # stable: ties stay drawn
    wanted: int = getattr(division, part)
    if wanted == 0:
        is_shared = sets["public"].info.name == sets["defender"].info.name
        wanted = len(fit) // 2 if part == "defender" and is_shared and division.public == 0 else len(fit)
        if part == "defender" and is_shared and division.public:
            wanted = len(fit) - division.public
    if len(fit) < wanted or wanted < (1 if part == "public" else 2):
        raise DataError(
            f"split: the {part} part asks for {wanted} people with {least} images or more, and "
            f"{sets[part].root} has {len(fit)} of {len(rows)} that are left. Lower the numbers."
        )
    return fit[:wanted]


def _person(division: Division, part: Part, name: str, rows: Sequence[int]) -> Person:
    if part != "private":
        return Person(name, tuple(rows))
    order = sorted(rows, key=lambda row: derive_seed(division.seed, "image", name, str(row - rows[0])))
    held = division.test_images or min(len(rows) - 1, max(1, round(len(rows) * division.test_fraction)))
    return Person(name, tuple(sorted(order[held:])), tuple(sorted(order[:held])))
