"""The part of a cell's page that shows single reconstructions and what each model says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mibench.errors import RecordError
from mibench.report.evidence import FILE, Evidence, Shot, exemplars, protected_shots, read_evidence, verdicts
from mibench.report.frame import Json, part
from mibench.report.tiles import Layout, read_layout

TILE = 80  # pixels of a face on the page
OPEN_ROWS = 6  # people shown at once; the others lie behind a fold


def evidence_of(folder: Path) -> Evidence | None:
    """The evidence beside a page; None where there is none, or none that this version can read."""
    try:
        return read_evidence(folder)
    except RecordError:  # a page is drawn without it; `mibench why` says what is wrong
        return None


def evidence_values(record: Json, folder: Path, evidence: Evidence | None, *, shows: bool) -> dict[str, Any]:
    """What the template shows of a cell's evidence; empty without any.

    Args:
        record: the cell's.
        folder: the cell's; holds the strips of its images.
        evidence: the cell's.
        shows: whether images are there and may be shown.
    """
    people = protected_shots(evidence)
    if not people:
        return {}
    layout = read_layout(folder) if shows else None
    rows = [_person(record, label, shots, layout) for label, shots in people.items()]
    return {
        "file": FILE,
        "verdicts": verdict_text(record, evidence),
        "open": rows[:OPEN_ROWS],
        "folded": rows[OPEN_ROWS:],
    }


def verdict_text(record: Json, evidence: Evidence | None) -> str:
    """How many reconstructions each model takes for their target, in a sentence or two; empty without any."""
    found = verdicts(evidence)
    if found is None:
        return ""
    net = part(record, "judge").get("audit_net")
    both = "" if found.both is None else f", {found.both} of which the audit judge ({net}) takes for it too"
    return (
        f"Of {found.count} reconstructions of protected people the deployed victim takes {found.victim} for "
        f"their target, the judge {found.judge}{both}. In the judge's features {found.own} lie nearest to a "
        "private training image of their target."
    )


def share_text(share: float | None) -> str:
    """A probability in percent; a small one is not called nothing."""
    if share is None:
        return "n/a"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def said_text(top: int | None, share: float | None, label: int) -> str:
    """What a model says of a reconstruction: the probability of the target, and its own label if another."""
    return share_text(share) + ("" if top == label else f", says {top}")


def score_text(value: float | None) -> str:
    """A score of an attack, four digits."""
    return "none" if value is None else f"{value:.4g}"


def nearest_text(one: Shot) -> str:
    """The nearest private training image, and how far the other side is."""
    if one.nearest_label == one.label:
        far = f"anybody else (label {one.other_label}) {score_text(one.other_distance)}"
        return f"number {one.nearest}, of the target, at {score_text(one.distance)}; {far}"
    far = f"the target {score_text(one.own_distance)}"
    return f"number {one.nearest}, of label {one.nearest_label}, at {score_text(one.distance)}; {far}"


def _person(record: Json, label: int, shots: Sequence[Shot], layout: Layout | None) -> dict[str, Any]:
    """One line: real faces, and the best, median and worst reconstruction of a person."""
    hits = sum(one.judge_top == label for one in shots)
    real = range(0 if layout is None else layout.columns.get("real", 0))
    return {
        "label": label,
        "hits": f"{hits} of {len(shots)}",
        "real": [_face("real", label, i, layout, f"Real image {i + 1} of label {label}") for i in real],
        "shots": [_shot(record, which, one, layout) for which, one in exemplars(shots).items()],
    }


def _shot(record: Json, which: str, one: Shot, layout: Layout | None) -> dict[str, Any]:
    """One reconstruction: its faces, and a list of who says what."""
    has_audit = part(record, "judge").get("audit_net") is not None
    said = [
        ("victim", said_text(one.victim_top, one.victim_p, one.label)),
        ("judge", said_text(one.judge_top, one.judge_p, one.label)),
        *([("audit", said_text(one.audit_top, one.audit_p, one.label))] if has_audit else []),
        ("confidence", score_text(one.confidence)),
        *([] if one.loss is None else [("loss", score_text(one.loss))]),
        ("nearest", nearest_text(one)),
    ]
    faces = [
        _face("got", one.label, one.index, layout, f"{which} reconstruction of label {one.label}"),
        _face(
            "nearest", one.label, one.index, layout, f"nearest private image, of label {one.nearest_label}"
        ),
    ]
    return {"which": which, "index": one.index + 1, "faces": faces if layout else [], "said": said}


def _face(kind: str, label: int, column: int, layout: Layout | None, alt: str) -> dict[str, str]:
    """A tile of a strip as the background of a box: a page then carries no second copy of its pixels."""
    if layout is None or label not in layout.labels:
        return {}
    row, (height, width) = layout.labels.index(label), layout.size
    tall = round(TILE * height / width)
    columns, rows = layout.columns.get(kind, 0), len(layout.labels)
    # half of a source pixel is cut off on each side, where smoothing would mix in the neighbor's
    style = (
        f"width:{TILE}px;height:{tall}px;background-image:url({kind}.png);"
        f"background-size:{columns * TILE}px {rows * tall}px;"
        f"background-position:-{column * TILE}px -{row * tall}px;"
        f"clip-path:inset({TILE / width / 2:.3g}px)"
    )
    return {"style": style, "alt": alt}
