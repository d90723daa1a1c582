"""Signs that a defense hides its gradients and not its people; drawn from records, without torch.

Source of the signs: Athalye et al., ICML 2018 (arXiv:1802.00420), and Croce and Hein, ICML 2020
(arXiv:2003.01690), who read them from attacks on robust classifiers.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mibench.key import canonical
from mibench.record import Record
from mibench.statistics import bootstrap_mean

Json = Mapping[str, Any]
SILENT = "zero_input_gradients"
IDLE = "loss_falls_but_aa_does_not_rise"
RESTARTS = "restarts_help_more_than_on_the_undefended"
BLACK_BOX = "black_box_beats_white_box"
_MOST_SILENT = 0.5  # share of images without a gradient above which a cell is flagged
UNDEFENDED = "none"


def masking_flags(scrutiny: Json) -> tuple[str, ...]:
    """The flags that one cell shows by itself, from what `stages.scrutiny` measured."""
    flags = []
    silent = scrutiny["silent_gradients"]
    if silent is not None and silent > _MOST_SILENT:
        flags.append(SILENT)
    curve, rise = scrutiny["effort"], scrutiny["rise"]
    losses = [point["loss"] for point in curve if point["loss"] is not None]
    if len(losses) > 1 and losses[-1] < losses[0] and not rise["low"] > 0:
        flags.append(IDLE)
    return tuple(flags)


def with_comparisons(records: Sequence[Record]) -> list[Record]:
    """The same records with the flags that only a comparison of cells shows.

    `restarts_help_more_than_on_the_undefended`: the gain of the chosen restart over the first one is, by its
    interval, above that of the same attack on the undefended victim. `black_box_beats_white_box`: the best
    attack without gradients on each label beats the best one with gradients, by the interval of the mean
    difference over labels; it stands on the white-box cells, which it makes untrustworthy.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_scene(record, record.defense["label"])].append(record)
    undefended = {
        (_scene(record, ""), record.attack["label"]): record
        for record in records
        if record.defense["label"] == UNDEFENDED
    }
    beaten = {scene for scene, group in groups.items() if _black_box_wins(group)}
    flagged = []
    for record in records:
        plain = undefended.get((_scene(record, ""), record.attack["label"]))
        fresh = [RESTARTS] if _restarts_help(record, plain) else []
        if _scene(record, record.defense["label"]) in beaten and _is_attack(record, white_box=True):
            fresh.append(BLACK_BOX)
        flagged.append(dataclasses.replace(record, flags=tuple(dict.fromkeys((*record.flags, *fresh)))))
    return flagged


def worst_case(records: Iterable[Record]) -> dict[str, float]:
    """The largest share of hits over attacks, for each protected label."""
    worst: dict[str, float] = {}
    for record in records:
        for label, share in record.by_target.items():
            worst[label] = max(share, worst.get(label, 0.0))
    return worst


def _black_box_wins(group: list[Record]) -> bool:
    white = worst_case(one for one in group if _is_attack(one, white_box=True))
    black = worst_case(one for one in group if _is_attack(one, white_box=False))
    labels = sorted(set(white) & set(black))
    if len(labels) < 2:
        return False
    change = np.array([black[label] - white[label] for label in labels])
    return bootstrap_mean(change)[0] > 0


def _restarts_help(record: Record, undefended: Record | None) -> bool:
    gain = _restart_gain(record)
    if gain is None or undefended is record or undefended is None:
        return False
    usual = _restart_gain(undefended)
    return bool(gain["low"] > max(0.0, usual["value"] if usual else 0.0))


def _restart_gain(record: Record) -> Json | None:
    restarts = record.scrutiny.get("restarts")
    return None if restarts is None else restarts["gain"]


def _is_attack(record: Record, *, white_box: bool) -> bool:
    is_white = record.attack["access"] == "white-box"
    return record.status == "ok" and not record.attack["control"] and is_white == white_box


def _scene(record: Record, defense: str) -> str:
    """What must be equal for cells to be compared."""
    return canonical([record.suite, record.data["digest"], record.victim_net, record.seed, defense])
