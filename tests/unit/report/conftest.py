"""Synthetic records of a whole suite: numbers that look like results, labels that try to do harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibench.record import SCHEMA
from mibench.report import save_cell_images, write_all

Record = dict[str, Any]
ATTACKS = [
    ("mi-face", "white-box", False, 0.18), ("gmi", "white-box", False, 0.34),
    ("dmi", "white-box", False, 0.71), ("mirror-b", "score", False, 0.62),
    ("ami", "score", False, 0.22), ("brep", "label", False, 0.47),
    ("mean_face", "score", True, 0.04), ("nearest_public", "score", True, 0.11),
]  # fmt: skip
DEFENSES = [
    ("none", "nothing", 0.962, 1.0), ("dp_sgd", "training", 0.61, 0.55), ("bido", "training", 0.91, 0.63),
    ("negative_ls", "training", 0.94, 0.42), ("purifier", "output", 0.955, 0.82),
    ("gan_id", "training", 0.952, 0.09), ("netguard", "training", 0.957, 0.05),
]  # fmt: skip
INFO = {
    "mc_all": {"title": "MC(all)", "better": "higher", "percent": True},
    "mc_target": {"title": "MC(l_t)", "better": "higher", "percent": True},
    "aa": {"title": "AA", "better": "lower", "percent": True},
    "aa5": {"title": "AA5", "better": "lower", "percent": True},
    "aa_audit": {"title": "AA(audit)", "better": "lower", "percent": True},
    "aa_null": {"title": "AA(null)", "better": "lower", "percent": True},
    "fid": {"title": "FID", "better": "higher", "percent": False},
    "mean_feature_distance": {"title": "MFD", "better": "higher", "percent": False},
    "far_decoy": {"title": "FAR(l_p)", "better": "lower", "percent": True},
}


def cell_name(*parts: object) -> str:
    """Twelve hexadecimal digits that depend on the parts alone."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _fraction(value: float, count: int) -> dict[str, Any]:
    value = round(min(max(value, 0.0), 1.0) * count) / count
    half = 1.96 * (value * (1 - value) / count + 0.25 / count**2) ** 0.5
    return {"value": value, "low": max(value - half, 0.0), "high": min(value + half, 1.0), "count": count}


def make_record(
    attack: tuple[str, str, bool, float] = ATTACKS[2],
    defense: tuple[str, str, float, float] = DEFENSES[0],
    *,
    seed: int = 0,
    view: str = "stripped",
    suite: str = "quick",
    **changes: Any,
) -> Record:
    """One record; `changes` replace its fields."""
    rng = np.random.default_rng(int(cell_name(attack[0], defense[0], seed, view), 16))
    name, access, control, power = attack
    factor = 1.0 if control else defense[3]
    success = power * factor + rng.normal(0, 0.02)
    fid = 420 - 330 * success + rng.normal(0, 6)
    estimates: dict[str, Any] = {
        "mc_all": _fraction(defense[2], 1000), "mc_target": _fraction(defense[2] - 0.02, 80),
        "aa": _fraction(success, 32), "aa5": _fraction(success * 1.4, 32),
        "aa_audit": _fraction(success * 0.9, 32), "aa_null": _fraction(0.01, 32),
        "fid": {"value": fid, "low": fid - 21.4, "high": fid + 25.1, "count": 32},
        "mean_feature_distance": {"value": fid / 90, "low": fid / 90, "high": fid / 90, "count": 32},
        "far_decoy": None if defense[0] != "netguard" else _fraction(0.24, 60),
    }  # fmt: skip
    record: Record = {
        "schema": SCHEMA, "suite": suite, "cell": cell_name(suite, name, defense[0], view, seed),
        "attack": {"label": name, "name": name.replace("-", "_"), "version": 1, "access": access,
                   "control": control, "params": {"steps": 300, "lr": 0.02}, "year": 0 if control else 2021,
                   "title": "The mean of all public images" if control else f"The paper of {name}"},
        "defense": {"label": defense[0], "name": defense[0], "version": 1, "params": {"epochs": 20},
                    "acts": defense[1], "knows": [], "per_target": defense[0] == "netguard",
                    "title": f"The paper of {defense[0]}"},
        "view": view if access == "white-box" else "black-box", "seed": seed,
        "data": {"kind": "synthfaces", "params": {"seed": 0, "nuisance": 1.0}, "num_classes": 100,
                 "size": [3, 32, 32], "digest": cell_name("data")},
        "victim_net": "small_vgg",
        "judge": {"net": "small_resnet", "accuracy": 0.974, "gate": 0.9, "audit_accuracy": 0.968},
        "status": "ok", "error": None, "estimates": estimates, "metric_info": INFO, "chance": 0.01,
        "targets": {"protected": [3, 7, 19, 42], "bystanders": [5, 8], "attacked": [3, 7, 19, 42, 5, 8],
                    "images": 8},
        "queries": {"forward_per_image": 1200.0, "gradient_per_image": 300.0, "prior_forward": 0},
        "notes": {"final_loss": 0.031}, "flags": [],
        "keys": {"train": cell_name("t", defense[0], seed) * 5,
                 "invert": cell_name("i", name, defense[0], seed) * 5},
        "provenance": {"mibench": "0.1.0", "torch": "2.8.0", "python": "3.12.4", "platform": "Linux x86_64",
                       "device": "cpu", "threads": 1},
    }  # fmt: skip
    return record | changes


def failed(
    stage: str = "train", kind: str = "TrainingError", message: str = "loss is NaN at step 40."
) -> Record:
    """The fields of a failed cell."""
    return {
        "status": "failed", "error": {"stage": stage, "type": kind, "message": message},
        "estimates": {}, "metric_info": {}, "queries": {}, "notes": {},
    }  # fmt: skip


@pytest.fixture
def make_records() -> Callable[..., list[Record]]:
    """Records of every attack against every defense; one cell failed, one blocked, one flagged."""

    def make(
        *, seeds: tuple[int, ...] = (0,), views: tuple[str, ...] = ("stripped",), **changes: Any
    ) -> list[Record]:
        records = [
            make_record(attack, defense, seed=seed, view=view, **changes)
            for seed in seeds for attack in ATTACKS for defense in DEFENSES
            for view in (views if attack[1] == "white-box" else ("black-box",))
        ]  # fmt: skip
        for record in records:
            pair = record["attack"]["label"], record["defense"]["label"]
            if pair == ("dmi", "dp_sgd"):
                record.update(failed())
            if pair == ("brep", "purifier"):
                error = {"stage": "plan", "type": "BlockedError", "message": "the budget of 10 is under 50."}
                record.update(failed() | {"status": "blocked", "error": error})
            if pair == ("ami", "bido"):
                record["flags"] = ["constant_reconstructions"]
        return records

    return make


Tiles = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_tiles(defense: str = "none", *, num: int = 2, size: int = 32) -> Tiles:
    """Colored tiles (T=6, num, size, size, 3) uint8: a hue an identity, noisier for later defenses."""
    strength = [entry[0] for entry in DEFENSES].index(defense) * 18
    rng = np.random.default_rng(7)
    grid = np.linspace(-1, 1, size)
    disc = (grid[:, None] ** 2 + (grid[None] * 1.25) ** 2 < 0.7)[..., None]
    faces = []
    for label in range(6):
        color = 120 + 100 * np.cos(label + np.array([0.0, 2.0, 4.0]))
        face = np.where(disc, color, 60 + 15 * label) + 20 * grid[:, None, None]
        faces.append(np.stack([face + 4 * shift for shift in range(num)]))
    real = np.stack(faces)
    got = real + rng.normal(0, strength + 4, real.shape)
    return _pixels(real), _pixels(got), _pixels(real[:, ::-1])


def _pixels(values: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


def write_results(folder: Path, records: list[Record]) -> Path:
    """The folder with records.jsonl and the images of every measured cell, as a run leaves them."""
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for record in records:
        if record["status"] == "ok":
            real, got, nearest = make_tiles(record["defense"]["label"])
            save_cell_images(
                folder / "cells" / record["cell"], real, got, nearest=nearest,
                labels=record["targets"]["attacked"], protected=[True] * 4 + [False] * 2,
            )  # fmt: skip
    return folder


@pytest.fixture(name="make_record")
def make_record_fixture() -> Callable[..., Record]:
    """The function that makes one record."""
    return make_record


@pytest.fixture(name="make_tiles")
def make_tiles_fixture() -> Callable[..., Tiles]:
    """The function that makes tiles."""
    return make_tiles


@pytest.fixture(scope="session")
def few_records() -> list[Record]:
    """Two attacks and a control against four defenses; one cell failed, one blocked, one flagged."""
    records = [
        make_record(attack, defense) for attack in ATTACKS[2:4] + ATTACKS[6:7] for defense in DEFENSES[:4]
    ]
    records[1].update(failed(message="<script>alert(1)</script> & \x1b[31mred"))
    records[6].update(failed() | {"status": "blocked"})
    records[7]["flags"] = ["constant_reconstructions"]
    return records


@pytest.fixture(scope="session")
def results_dir(tmp_path_factory: pytest.TempPathFactory, few_records: list[Record]) -> Path:
    """results/quick of `few_records` with everything that the report writes."""
    folder = write_results(tmp_path_factory.mktemp("report") / "results" / "quick", few_records)
    write_all(folder)
    return folder
