"""Signs that a defense hides its gradients and not its people; drawn from records, without torch.

Source of the signs: Athalye et al., ICML 2018 (arXiv:1802.00420), and Croce and Hein, ICML 2020
(arXiv:2003.01690), who read them from attacks on robust classifiers. Records are taken as mappings here
wherever a report, which reads them as such, asks the same question.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mibench.key import canonical
from mibench.record import Record
from mibench.statistics import mean_change

Json = Mapping[str, Any]
Floats = NDArray[np.float64]
SILENT = "zero_input_gradients"
IDLE = "loss_falls_but_aa_does_not_rise"
RESTARTS = "restarts_help_more_than_on_the_undefended"
BLACK_BOX = "black_box_beats_white_box"
UNDEFENDED = "none"
MIN_LABELS = 5  # fewer protected labels make intervals over labels too narrow to compare cells by
MIN_DUEL_LABELS = 10  # likewise for a comparison that rests on half of the images
MOST_SILENT = 0.5  # share of images without a gradient above which a cell is flagged


def masking_flags(scrutiny: Json) -> tuple[str, ...]:
    """The flags that one cell shows by itself, from what `stages.scrutiny` measured."""
    silent = scrutiny["silent_gradients"]
    return (SILENT,) if silent is not None and silent > MOST_SILENT else ()


def with_comparisons(records: Sequence[Record]) -> list[Record]:
    """The same records with the flags that only a comparison of cells shows.

    Two hold a cell against the same attack, in the same view, on the undefended victim, both over at least
    MIN_LABELS labels. `restarts_help_more_than_on_the_undefended`: the gain of the chosen restart over the
    first one is, by its interval, above the gain there. `loss_falls_but_aa_does_not_rise`: a white-box
    attack's loss falls and its AA does not rise, by its interval, where on the undefended victim AA does.

    `black_box_beats_white_box` holds the best attack without gradients against the best one with gradients,
    see `_black_box_wins`; it stands on the white-box cells, which it makes untrustworthy.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[scene(vars(record)) + record.defense["label"]].append(record)
    undefended = {_twin(record): record for record in records if record.defense["label"] == UNDEFENDED}
    beaten = {name for name, group in groups.items() if _black_box_wins(group)}
    flagged = []
    for record in records:
        plain = undefended.get(_twin(record))
        fresh = []
        if plain is not None and plain is not record and _comparable(record) and _comparable(plain):
            fresh += [RESTARTS] if _restarts_help(record, plain) else []
            fresh += [IDLE] if _idles(record, plain) else []
        if scene(vars(record)) + record.defense["label"] in beaten and _is_rival(record, white_box=True):
            fresh.append(BLACK_BOX)
        flagged.append(dataclasses.replace(record, flags=tuple(dict.fromkeys((*record.flags, *fresh)))))
    return flagged


def attacks_people(record: Json) -> bool:
    """True where a cell tells how well an attack finds what a label's person looks like.

    It was measured, image by image, is no control, and has the goal "class": an attack with the goal
    "instance" holds predictions of private images, which no other attack has.
    """
    attack = record.get("attack") or {}
    goal = (attack.get("params") or {}).get("goal")
    measured = record.get("status") == "ok" and bool(record.get("hits"))
    return measured and not attack.get("control") and goal != "instance"


def scene(record: Json) -> str:
    """What must be equal for cells of several attacks and defenses to be compared."""
    return canonical([*_place(record), record.get("seed")])


def person(record: Json, label: str) -> tuple[str, str]:
    """A protected person, and the seed of the attack; one person may be attacked in several seeds."""
    return canonical([*_place(record), label]), str(record.get("seed"))


def _place(record: Json) -> list[Any]:
    """Suite, data and victim network."""
    digest = (record.get("data") or {}).get("digest")
    return [record.get("suite"), digest, record.get("victim_net")]


def shared_labels(records: Sequence[Json]) -> list[str]:
    """Protected labels that every record attacked with two images or more; records must not be empty."""
    named = [{label for label, hits in one["hits"].items() if len(hits) > 1} for one in records]
    return sorted(set.intersection(*named))


def halves(records: Sequence[Json], labels: Sequence[str]) -> tuple[Floats, Floats]:
    """Shares of hits of R records on L labels over the even images and over the odd ones, (R, L) each.

    Two halves, so that what is chosen by one can be scored by the other without bias.
    """
    # sums of digits are exact, so Python's own are NumPy's, which takes ten times as long for a few of them
    bits = [[list(map(int, one["hits"][label])) for label in labels] for one in records]
    even, odd = (np.array([[_mean(hits[i::2]) for hits in line] for line in bits]) for i in (0, 1))
    return even, odd


def _mean(digits: Sequence[int]) -> float:
    return sum(digits) / len(digits)


def best_of(judged: Floats, scored: Floats) -> Floats:
    """The scores (R, L) of the record that is best by `judged`, (R, L) or (R, 1): (L,), ties averaged."""
    best = np.isclose(judged, judged.max(0))
    chosen: Floats = (scored * best).sum(0) / best.sum(0)
    return chosen


def _black_box_wins(group: Sequence[Record]) -> bool:
    """True where the best attack without gradients beats the best one with gradients.

    Each side is chosen by its mean AA on the even images and the two are compared on the odd ones, by the
    interval of the mean difference over at least MIN_DUEL_LABELS labels; so it does not matter how many
    attacks a side has.
    """
    sides = [[vars(one) for one in group if _is_rival(one, white_box=white)] for white in (True, False)]
    if not all(sides):
        return False
    labels = shared_labels([one for side in sides for one in side])
    if len(labels) < MIN_DUEL_LABELS:
        return False
    parts = [halves(side, labels) for side in sides]
    white, black = (best_of(even.mean(1, keepdims=True), odd) for even, odd in parts)
    return mean_change(black - white)[0] > 0


def _restarts_help(record: Record, undefended: Record) -> bool:
    gain, usual = (one.scrutiny.get("restarts") for one in (record, undefended))
    if gain is None or usual is None:
        return False
    return bool(gain["gain"]["low"] > max(0.0, usual["gain"]["value"]))


def _idles(record: Record, undefended: Record) -> bool:
    losses = [point["loss"] for point in record.effort if point["loss"] is not None]
    rise, usual = (one.scrutiny.get("rise") for one in (record, undefended))
    if not _is_attack(record, white_box=True) or len(losses) < 2 or rise is None or usual is None:
        return False
    return bool(losses[-1] < losses[0] and not rise["low"] > 0 and usual["low"] > 0)


def _comparable(record: Record) -> bool:
    return len(record.hits) >= MIN_LABELS


def _is_attack(record: Record, *, white_box: bool) -> bool:
    is_white = record.attack["access"] == "white-box"
    return record.status == "ok" and not record.attack["control"] and is_white == white_box


def _is_rival(record: Record, *, white_box: bool) -> bool:
    return attacks_people(vars(record)) and _is_attack(record, white_box=white_box)


def _twin(record: Record) -> tuple[str, str, str]:
    """What a cell has in common with the same attack on the undefended victim."""
    return scene(vars(record)), record.attack["label"], record.view
