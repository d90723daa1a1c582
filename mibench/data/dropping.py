"""A split without some of its public images, which says what was taken out and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mibench.data.prepared import PreparedSet
from mibench.data.source import Part
from mibench.data.split_file import Person, SplitFile, part_digest
from mibench.errors import DataError

_LEAST_PEOPLE: dict[Part, int] = {"public": 1, "defender": 2}


def without(
    split: SplitFile,
    sets: Mapping[str, PreparedSet],
    gone: Mapping[Part, Mapping[int, Mapping[str, Any]]],
) -> SplitFile:
    """The split without some images of its public parts; the private part stays as it is.

    A person of whom no image is left goes too. `dropped` grows by an entry an image: part, set, identity, row
    and what is said of it.

    Args:
        split: stays as it is.
        sets: of the split, by name.
        gone: of the parts `public` and `defender`, rows of their sets, each with why it goes, as JSON.

    Raises:
        DataError: a row is not in its part, a private image is to go, or too few people would be left.
    """
    parts = dict(split.parts)
    dropped = list(split.dropped)
    for part, rows in gone.items():
        if part not in _LEAST_PEOPLE:
            raise DataError(f"split: images of the {part} part are never dropped. Drop those of the others.")
        old = parts[part]
        whose = {row: one.name for one in old.people for row in (*one.train, *one.test)}
        strange = sorted(set(rows) - set(whose))
        if strange:
            raise DataError(f"split: row {strange[0]} is not in the {part} part. Drop rows of that part.")
        left = tuple(one for one in (_less(person, rows) for person in old.people) if one.train)
        if len(left) < _LEAST_PEOPLE[part]:
            raise DataError(
                f"split: without {len(rows)} of {len(whose)} images the {part} part has {len(left)} people, "
                f"and needs {_LEAST_PEOPLE[part]}. Take another set for that part."
            )
        digest = part_digest(sets[old.set_name].pixels, left)
        parts[part] = dataclasses.replace(old, people=left, digest=digest)
        dropped += [
            {"part": part, "set": old.set_name, "identity": whose[row], "row": row, **rows[row]}
            for row in sorted(rows)
        ]
    return dataclasses.replace(split, parts=parts, dropped=tuple(dropped))


def _less(person: Person, rows: Mapping[int, object]) -> Person:
    train, test = (tuple(row for row in own if row not in rows) for own in (person.train, person.test))
    return Person(person.name, train, test)
