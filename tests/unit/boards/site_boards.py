"""Boards for tests of the site: any number of defenses and attacks, nights, and words that try to do harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mibench.boards.board import Board, read_board
from mibench.boards.history import Alarm, Estimate, Night, Seen, append_night
from mibench.boards.site.reading import read_sheet
from mibench.record import SCHEMA
from mibench.report import save_cell_images
from mibench.report.evidence import Evidence, Shot, facts_of

PEOPLE, IMAGES = (3, 7, 19, 42, 77), 8
METRICS = {
    "mc_all": {"title": "MC(all)", "better": "higher", "percent": True},
    "mc_target": {"title": "MC(l_t)", "better": "higher", "percent": True},
    "aa": {"title": "AA", "better": "lower", "percent": True},
    "fid": {"title": "FID", "better": "higher", "percent": False},
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK(\"http://evil.example\",\"x\")",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\x1b[2Jred \u202eevil\u202c",
    "../../../etc/passwd",
    "{{ 7*7 }}{% raw %}",
    "\\input{/etc/passwd} & 50 % of $x_1^2$ ~#",
    "ünïcödé ½ ß Ω — \u2013 → ﬁ",
    "constructor",
    "__proto__",
)  # fmt: skip


def make_board(
    root: Path,
    *,
    defenses: int = 4,
    attacks: int = 3,
    nights: int = 3,
    names: Sequence[str] = (),
    titles: Sequence[str] = ("The paper of the method",),
    name: str = "made",
    data: dict[str, Any] | None = None,
) -> Board:
    """A board in a folder below `root`, its records and nights the same whenever it is made.

    Args:
        root: the folder of boards.
        defenses: how many beside no defense.
        attacks: how many.
        nights: how many ran; from the third on there is an alarm.
        names: labels of the first attacks and defenses, in place of plain ones.
        titles: of attacks and defenses, in turn.
        name: of the board.
        data: fields of the records' data.
    """
    folder = root / name
    (folder / "entries").mkdir(parents=True)
    (folder / "board.toml").write_text(
        f'schema = 1\ntitle = "A board for tests"\nsuite = "quick"\naccess = "white-box"\n'
        f"about = {json.dumps(titles[0])}\n"
    )
    rows = ["none", *names, *(f"defense_{i}" for i in range(defenses))][: defenses + 1]
    columns = [*names, *(f"attack_{i}" for i in range(attacks))][:attacks]
    lines = [
        json.dumps(_record((row, i), (column, j), titles, data or {}))
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
    (folder / "records.jsonl").write_text("".join(f"{line}\n" for line in lines))
    board = read_board(folder)
    _add_nights(board, nights)
    return board


def add_pictures(results: Path, record: dict[str, Any], *, withheld: bool = False) -> Path:
    """Images and evidence of a cell in a folder of results, as a run writes them; where the images lie."""
    suite, cell = results / str(record["suite"]), str(record["cell"])
    evidence = suite / "cells" / cell
    pictures = suite / "withheld" / "cells" / cell if withheld else evidence
    rng = np.random.default_rng(7)
    real, got = (rng.integers(0, 256, (len(PEOPLE), n, 32, 32, 3), dtype=np.uint8) for n in (2, IMAGES))
    save_cell_images(pictures, real, got, got, labels=PEOPLE, protected=[True] * len(PEOPLE))
    shots = tuple(_shot(label, index) for label in PEOPLE for index in range(IMAGES))
    evidence.mkdir(parents=True, exist_ok=True)
    kept = Evidence(cell=record["cell"], facts=facts_of(record), shots=shots)
    (evidence / "evidence.json").write_text(kept.to_json())
    return pictures


def _shot(label: int, index: int) -> Shot:
    return Shot(
        model=0, label=label, index=index, protected=True, confidence=0.5, loss=0.1, victim_top=label,
        victim_p=0.9, judge_top=label, judge_p=0.1 * index, audit_top=None, audit_p=None, nearest=4,
        nearest_label=label, distance=1.0, own_distance=1.0, other_label=5, other_distance=2.0,
    )  # fmt: skip


def _record(
    defense: tuple[str, int], attack: tuple[str, int], titles: Sequence[str], data: dict[str, Any]
) -> dict[str, Any]:
    """A cell; label and number of its defense and its attack."""
    (row, i), (column, j) = defense, attack
    cell = hashlib.sha256(json.dumps([row, column]).encode()).hexdigest()[:12]
    rng = np.random.default_rng(int(cell, 16))
    chance = rng.uniform(0.1, 0.9) * (1.0 if row == "none" else rng.uniform(0.2, 1.0))
    hits = {str(label): "".join(map(str, rng.binomial(1, chance, IMAGES))) for label in PEOPLE}
    found = sum(text.count("1") for text in hits.values()) / (IMAGES * len(PEOPLE))
    accuracy = 0.97 - (0.0 if row == "none" else 0.08 * ((i * 37) % 10) / 10)

    def rate(value: float, count: int) -> dict[str, Any]:
        half = 0.5 / count**0.5
        return {"value": value, "low": max(0, value - half), "high": min(1, value + half), "count": count}

    return {
        "schema": SCHEMA, "suite": "quick", "cell": cell,
        "attack": {"label": column, "name": "made_attack", "version": 1, "control": False, "params": {},
                   "access": ("white-box", "score", "label")[j % 3], "year": 2021,
                   "title": titles[j % len(titles)]},
        "defense": {"label": row, "name": "none" if row == "none" else "made", "version": 1, "knows": [],
                    "acts": "nothing" if row == "none" else ("training", "fine-tuning", "output")[i % 3],
                    "params": {"strength": 0.5, "words": titles[0]}, "per_target": False,
                    "title": titles[i % len(titles)]},
        "view": "stripped" if j % 3 == 0 else "black-box", "seed": 0,
        "data": {"kind": "synthfaces", "params": {}, "num_classes": 100, "size": [3, 32, 32]} | data,
        "victim_net": "small_vgg", "judge": {"net": "small_resnet", "accuracy": 0.97, "gate": 0.9},
        "status": "ok", "error": None, "metric_info": METRICS, "chance": 0.01, "hits": hits,
        "estimates": {"mc_all": rate(accuracy, 1000), "mc_target": rate(accuracy - 0.02, 80),
                      "aa": rate(found, 40), "fid": {"value": 90.5, "low": 90.5, "high": 90.5, "count": 40}},
        "targets": {"protected": list(PEOPLE), "bystanders": [], "attacked": list(PEOPLE), "images": IMAGES},
        "queries": {}, "notes": {}, "keys": {}, "provenance": {"mibench": "0.1.0"},
        "flags": ["constant_reconstructions"] if (i, j) == (1, 0) else [],
    }  # fmt: skip


def _add_nights(board: Board, nights: int) -> None:
    rows = read_sheet(board).standings.rows if nights else ()
    for number in range(1, nights + 1):
        seen = {
            row.name: Seen(
                status="ok",
                ran=len(row.cells) if number == 1 else 0,
                ranks=row.ranks or (),
                worst=_moved(Estimate.of(row.worst), 0.01 * ((number * 7 + i) % 5 - 2)),
                mc_all=Estimate.of(row.mc_all),
                mc_target=Estimate.of(row.mc_target),
                wall_s=400.0 + 10 * i,
                peak_mib=800.0,
            )
            for i, row in enumerate(rows)
        }
        alarm = Alarm(entry=rows[-1].name, what="aa", before=0.2, now=0.3, low=0.02, high=0.18, nights=2)
        month, day = divmod(number - 1, 28)
        date = f"{2026 + month // 12}-{month % 12 + 1:02}-{day + 1:02}"
        append_night(
            board,
            Night(
                night=number, started=f"{date}T01:00:00+00:00", ended=f"{date}T01:20:00+00:00",
                software={"mibench": "0.1.0"}, cells=9, hits=30, ran=0, failed=0, left_out=0, entries=seen,
                alarms=(alarm,) if number >= 3 else (), suspicions=(alarm,) if number == 2 else (),
            ),
        )  # fmt: skip


def _moved(one: Estimate, by: float) -> Estimate:
    return one if one.value is None else replace(one, value=min(max(one.value + by, 0.0), 1.0))
