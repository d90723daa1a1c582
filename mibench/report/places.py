"""Where a report's files lie, so that the pages link to what the other writers wrote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mibench.record import Record
from mibench.report.atomic import write_text
from mibench.report.escape import plain, slugs
from mibench.report.frame import WITHHELD, Json, part, scenes


@dataclass(frozen=True)
class Scene:
    """The records of one scene, its name, and what its figures' names end with (nothing for a lone scene)."""

    name: str
    ending: str
    records: list[Json]


@dataclass(frozen=True)
class FigureFile:
    """A figure that a scene may have: its stem in `figures/`, a heading, a text for who cannot see it."""

    stem: str
    heading: str
    alt: str


def scenes_of(records: Iterable[Json | Record]) -> list[Scene]:
    """The scenes of records in order, with file names that differ."""
    found = scenes(records)
    names = slugs(list(found))
    return [Scene(n, f"-{names[n]}" if len(found) > 1 else "", part) for n, part in found.items()]


def attack_label(record: Json) -> str:
    """The label of a record's attack as the report prints it."""
    return plain(part(record, "attack").get("label", "?"), 40)


def defense_label(record: Json) -> str:
    """The label of a record's defense as the report prints it."""
    return plain(part(record, "defense").get("label", "?"), 40)


def plot_files(scene: Scene) -> dict[str, FigureFile]:
    """The plots of a scene by what they show."""
    see = "The numbers are in the comparison table."
    return {
        "tradeoff": FigureFile(
            f"tradeoff{scene.ending}",
            "Privacy against utility",
            f"Scatter plot, {scene.name}: classification accuracy across, attack accuracy upwards, a marker "
            f"for each defense against each attack. {see}",
        ),
        "aa": FigureFile(
            f"aa{scene.ending}",
            "Attack accuracy by defense",
            f"Chart, {scene.name}: attack accuracy of each attack against each defense. {see}",
        ),
        "fid": FigureFile(
            f"fid{scene.ending}",
            "FID by defense",
            f"Chart, {scene.name}: FID of each attack's reconstructions against each defense. {see}",
        ),
        "risk": FigureFile(
            f"risk{scene.ending}",
            "Risk by person",
            f"Histograms, {scene.name}: how many people have which share of their reconstructions "
            "recognized, for each defense over no defense. The numbers are in risk.csv.",
        ),
    }


def withheld(results_dir: Path) -> Path:
    """The folder of images that no report and no repository may hold, made so that git passes over it."""
    folder = results_dir / WITHHELD
    if not (folder / ".gitignore").is_file():
        write_text(folder / ".gitignore", "*\n")
    return folder


def grid_files(scene: Scene) -> dict[str, FigureFile]:
    """The reconstruction grids of a scene by attack."""
    attacks = slugs([attack_label(record) for record in scene.records])
    return {
        attack: FigureFile(
            f"grid-{name}{scene.ending}",
            attack,
            f"Faces in rows, {scene.name}: real images of the protected labels, below them what {attack} "
            "reconstructed from the model of each defense, once for defenses where that is the same.",
        )
        for attack, name in attacks.items()
    }
