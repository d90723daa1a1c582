"""What `mibench data overlap` leaves in its folder: a table, the same as JSON, and pictures of pairs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mibench.atomic import write_atomically
from mibench.data.contact_sheet import Strip, contact_sheet
from mibench.data.source import PARTS, Part
from mibench.errors import DataError
from mibench.overlap import Duplicates, Likenesses, Lookalike, NearDuplicate, Place, SplitImages
from mibench.report.escape import csv_text, plain

SCHEMA = 1
CSV, JSON, SHEETS = "overlap.csv", "overlap.json", ("duplicates.png", "lookalikes.png")
COLUMNS = (
    "kind",
    "part",
    "identity",
    "row",
    "file",
    "like_part",
    "like_identity",
    "like_row",
    "like_file",
    "bits",
    "correlation",
    "mirrored",
    "right",
    "down",
    "likeness",
    "own_likeness",
)
Names = dict[str, list[str]]
_IGNORE = b"*\n"


def file_names(images: SplitImages) -> Names:
    """What the manifests call the files behind each set's rows, by name of the set.

    Raises:
        DataError: a manifest cannot be read.
    """
    return {name: [line["file"] for line in found.manifest()] for name, found in images.sets.items()}


def entries(
    images: SplitImages, duplicates: Duplicates, likenesses: Likenesses | None, names: Names
) -> list[dict[str, Any]]:
    """One entry a finding, under COLUMNS; near-duplicates first, most alike first."""

    def said(place: Place, prefix: str = "") -> dict[str, Any]:
        files = names[images.split.parts[place.part].set_name]
        told = (place.part, place.person, place.row, files[place.row])
        return dict(zip((f"{prefix}{column}" for column in ("part", "identity", "row", "file")), told))

    found: list[dict[str, Any]] = [
        {"kind": "near-duplicate", **said(one.other), **said(one.kept, "like_"), "bits": one.bits}
        | {"correlation": one.correlation, **dataclasses.asdict(one.move)}
        for one in duplicates.found
    ]
    found += [
        {"kind": "identity", **said(one.other), **said(one.nearest, "like_")}
        | {"likeness": one.likeness, "own_likeness": one.own}
        for one in _faces_of(likenesses)
    ]
    return found


def reasons(
    duplicates: Duplicates, lookalikes: tuple[Lookalike, ...]
) -> dict[Part, dict[int, dict[str, Any]]]:
    """Which public images are to go and why, by part and row; of several reasons the most alike pair."""
    gone: dict[Part, dict[int, dict[str, Any]]] = {"public": {}, "defender": {}}
    for one in duplicates.found:
        why = {"like_part": one.kept.part, "like_identity": one.kept.person, "like_row": one.kept.row}
        told = {"reason": "near-duplicate", **why, "bits": one.bits, "correlation": round(one.correlation, 4)}
        gone[one.other.part].setdefault(one.other.row, told)
    for face in lookalikes:
        why = {"like_part": "private", "like_identity": face.nearest.person}
        told = {"reason": "identity", **why, "likeness": round(face.likeness, 4)}
        gone[face.other.part].setdefault(face.other.row, {**told, "own_likeness": round(face.own, 4)})
    return {part: rows for part, rows in gone.items() if rows}


def write_report(
    folder: Path,
    images: SplitImages,
    duplicates: Duplicates,
    likenesses: Likenesses | None,
    *,
    options: Mapping[str, Any],
    shown: int,
) -> list[Path]:
    """Write the table, the JSON and the sheets; the folder gets a `.gitignore`, since it shows people.

    Args:
        folder: made if need be; files of these names are replaced, sheets without a pair removed.
        images: of the split.
        duplicates: what was found.
        likenesses: what was found; None where it was not asked for.
        options: of the command, as JSON.
        shown: pairs on a sheet at most.

    Raises:
        DataError: a manifest cannot be read, or the folder cannot be written to or is somebody else's.
    """
    found = entries(images, duplicates, likenesses, file_names(images))
    files = {CSV: _csv(found), JSON: _json(images, found, duplicates, likenesses, options)}
    sheets = (
        _sheet(images, [_pair(images, one) for one in duplicates.found[:shown]], "Near-duplicates"),
        _sheet(images, [_faces(images, one) for one in _faces_of(likenesses)[:shown]], "Likenesses"),
    )
    files |= {name: sheet for name, sheet in zip(SHEETS, sheets) if sheet}
    ignore = folder / ".gitignore"
    try:
        if ignore.exists() and ignore.read_bytes() != _IGNORE:
            raise DataError(
                f"overlap {folder}: has a .gitignore of its own, so it is none of these reports. Give a new "
                "folder by --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(ignore, _IGNORE)
        for name in {*SHEETS} - {*files}:
            (folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise DataError(
            f"overlap {folder}: cannot be written ({error.strerror or error}). Choose another --out."
        ) from error
    return [folder / name for name in files]


def _csv(found: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for one in found:
        writer.writerow(
            {name: csv_text(value) if isinstance(value, str) else value for name, value in one.items()}
        )
    return out.getvalue().encode(errors="replace")


def _json(
    images: SplitImages,
    found: list[dict[str, Any]],
    duplicates: Duplicates,
    likenesses: Likenesses | None,
    options: Mapping[str, Any],
) -> bytes:
    split = images.split
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "split": {part: split.parts[part].digest for part in PARTS},
        "options": dict(options),
        "images": duplicates.images,
        "flat": duplicates.flat,
        "near_duplicates": [one for one in found if one["kind"] != "identity"],
    }
    if likenesses is not None:
        facts = {
            key: getattr(likenesses, key) for key in ("space", "accuracy", "chance", "untested", "can_tell")
        }
        rows = [one for one in found if one["kind"] == "identity"]
        told["identity"] = {**facts, "images": likenesses.images, "flagged": rows}
    return (json.dumps(told, indent=1) + "\n").encode()


def _faces_of(likenesses: Likenesses | None) -> tuple[Lookalike, ...]:
    """What was flagged; nothing where the space cannot tell people, since it then flags nearly all."""
    return likenesses.found if likenesses and likenesses.can_tell else ()


def _sheet(images: SplitImages, strips: list[Strip], title: str) -> bytes | None:
    if not strips:
        return None
    terms = [link.terms for link in images.split.sets.values() if not link.may_publish]
    about = "for your own eyes: look before you drop"
    return contact_sheet(strips, title=title, about=about, terms=plain(" ".join(terms)))


def _pair(images: SplitImages, one: NearDuplicate) -> Strip:
    shown = [images.pixels(place.part)[place.row] for place in (one.kept, one.other)]
    label = f"{one.kept.part} row {one.kept.row}, {one.other.part} row {one.other.row}"
    about = f"{'mirrored, ' if one.move.mirrored else ''}correlation {one.correlation:.3f}, {one.bits} bits"
    return Strip(label, about, np.stack(shown))


def _faces(images: SplitImages, one: Lookalike) -> Strip:
    """The public image, then the nearest private one and others of that person."""
    person = next(p for p in images.split.parts["private"].people if p.name == one.nearest.person)
    others = [row for row in person.train if row != one.nearest.row][:2]
    private = images.pixels("private")
    shown = [
        images.pixels(one.other.part)[one.other.row],
        *(private[row] for row in (one.nearest.row, *others)),
    ]
    label = f"{one.other.part} row {one.other.row}, private {plain(one.nearest.person, 40)}"
    return Strip(label, f"likeness {one.likeness:.3f}, own {one.own:.3f}", np.stack(shown))
