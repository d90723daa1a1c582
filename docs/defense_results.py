"""What the committed run of suite `defenses` gave for each defense, as parts of its page."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page_parts import number

from mibench.record import Record, read_records
from mibench.report.worst import worst_cases

RESULTS = Path("results/defenses")
UNDEFENDED = "none"
OF_MODEL = ("mc_all", "mc_target", "far_decoy", "far_public")  # measured of the model, whoever attacks it
OF_ATTACK = ("aa", "fid")
Json = Mapping[str, Any]
Row = tuple[str, str]  # label of an attack and its view


@dataclass(frozen=True)
class Measured:
    """Records of the suite by the defense's label, and seconds by task; both empty without a committed run.

    Args:
        records: of each label, all attacks and seeds.
        worst: of each label, the worst case over attacks, one record for each seed.
        seconds: of each task whose cost is known, by key.
        has_readings: whether a page says how to read the run.
    """

    records: Mapping[str, Sequence[Json]]
    worst: Mapping[str, Sequence[Json]]
    seconds: Mapping[str, float]
    has_readings: bool

    def labels(self, name: str) -> list[str]:
        """Labels under which a plugin stands in the suite, its own name first."""
        found = [label for label, group in self.records.items() if group[0]["defense"]["name"] == name]
        return sorted(found, key=lambda label: label != name)

    def page_part(self, name: str) -> Iterator[str]:
        """Everything that was measured of a plugin, against the undefended victim; nothing without a run."""
        labels = self.labels(name)
        if not labels:
            return
        yield "\n## On synthfaces\n"
        yield self._scene()
        for label in labels:
            if label != name:
                yield f"\n### As `{label}`"
            blocked = _why_blocked(self.records[label])
            if blocked:
                yield f"\nNot measured: {blocked}"
                continue
            yield from self._of_model(label)
            yield from self._of_attacks(label)
            yield from self._cost(label)

    def index_head(self) -> Iterator[str]:
        """What the numbers of the list are."""
        if self.records:
            yield self._scene()
            yield "Where a defense has one model for each prior, its MC is the mean over attacks."
            if self.has_readings:
                yield "[How to read it](../../results/defenses/README.md)."

    def index_columns(self) -> list[str]:
        """Headings of `index_cells`."""
        return ["MC, all (%)", "worst-case AA (%)"] if self.records else []

    def index_cells(self, name: str) -> list[str]:
        """Accuracy and worst-case AA of a plugin under its first label."""
        labels = self.labels(name)
        if not self.records:
            return []
        if not labels:
            return ["", ""]
        mc = pooled(self.records[labels[0]], "mc_all")
        return [_shown(mc), _shown(pooled(self.worst.get(labels[0], ()), "aa"))]

    def _scene(self) -> str:
        """What the numbers are about."""
        records = [one for group in self.records.values() for one in group]
        one = next((record for record in records if record["status"] == "ok"), None)
        if one is None:
            return "No cell of suite `defenses` was measured."
        data, targets = one["data"], one["targets"]
        height, width = data["size"][-2:]
        seeds = len({record["seed"] for record in records})
        many = f" Means over {seeds} seeds, and of the ends of their intervals." if seeds > 1 else ""
        return (
            f"Suite `defenses`: {one['victim_net']}, {data['num_classes']} people, {height}x{width} pixels, "
            f"{len(targets['protected'])} protected labels with {targets['images']} images each; "
            f"95 % intervals.{many}"
        )

    def _of_model(self, label: str) -> Iterator[str]:
        """What the defense costs the people that it serves."""
        yield _heading(["of the model", *self._beside(label), label])
        for metric in OF_MODEL:
            plain = [_shown(pooled(self.records[one], metric)) for one in self._beside(label)]
            for attacks, value in self._models(label, metric):
                yield _line([f"{_title(self.records[label], metric)}{attacks}", *plain, value])

    def _models(self, label: str, metric: str) -> Iterator[tuple[str, str]]:
        """The distinct values of a metric of the model, with the attacks that met each where they differ."""
        values: dict[str, list[str]] = defaultdict(list)
        for (attack, _), group in _rows(self.records[label]).items():
            estimate = pooled(group, metric)
            if estimate is not None and attack not in values[_shown(estimate)]:
                values[_shown(estimate)].append(attack)
        for value, attacks in values.items():
            yield (f" ({', '.join(attacks)})" if len(values) > 1 else ""), value

    def _of_attacks(self, label: str) -> Iterator[str]:
        """Every attack on it, beside the same on the undefended victim, and the worst case."""
        columns = [*self._beside(label), label]
        rows = [_rows(self.records[one]) for one in columns]
        names = [name for name in OF_ATTACK if _title(self.records[label], name)]
        titles = [_title(self.records[label], name) for name in names]
        yield _heading(["attack", "access", *(f"{title}, {one}" for title in titles for one in columns)])
        for row, group in rows[-1].items():
            attack = group[0]["attack"]
            access = "control" if attack["control"] else attack["access"]
            access += " (deployed)" if row[1] == "deployed" else ""
            cells = (_state(some.get(row, ()), name) for name in names for some in rows)
            yield _line([row[0], access, *cells])
        worst = [pooled(self.worst.get(one, ()), "aa") for one in columns]
        if all(worst):
            blank = [""] * (len(names) - 1) * len(columns)
            yield _line([self.worst[label][0]["attack"]["label"], "any", *map(_shown, worst), *blank])

    def _beside(self, label: str) -> list[str]:
        """The label of the undefended victim, which numbers stand beside; nothing beside its own."""
        return [UNDEFENDED] if label != UNDEFENDED and UNDEFENDED in self.records else []

    def _cost(self, label: str) -> Iterator[str]:
        """Seconds of the defense's own tasks."""
        for stage, words in (("train", "to train a model"), ("output", "to learn the output step")):
            others = () if label == UNDEFENDED else self.records.get(UNDEFENDED, ())
            keys = _keys(self.records[label], stage) - _keys(others, stage)
            known = [self.seconds[key] for key in sorted(keys) if key in self.seconds]
            if known:
                count = f", mean of {len(known)} models" if len(known) > 1 else ""
                yield f"\n{sum(known) / len(known):,.1f} seconds {words}, one core{count}."


def read_measured(root: Path) -> Measured:
    """The committed run under `root`; one that holds nothing if there is none."""
    file = root / RESULTS / "records.jsonl"
    read: list[Record] = read_records(file) if file.is_file() else []
    records, worst = defaultdict[str, list[Json]](list), defaultdict[str, list[Json]](list)
    plain = [vars(one) for one in read]
    for one in plain:
        records[one["defense"]["label"]].append(one)
    for one in worst_cases(plain):
        worst[one["defense"]["label"]].append(one)
    costs = root / RESULTS / "costs.jsonl"
    lines = costs.read_text(encoding="utf-8").splitlines() if costs.is_file() else []
    seconds = {cost["key"]: float(cost["wall_s"]) for cost in map(json.loads, lines)}
    return Measured(dict(records), dict(worst), seconds, (root / RESULTS / "README.md").is_file())


def pooled(records: Sequence[Json], metric: str) -> Json | None:
    """Mean over records of a metric and of the ends of its intervals; None where none was measured.

    The mean of the ends is the interval of the mean where records share what moves them, as seeds share the
    people, and is too wide where they do not.
    """
    found = [one for record in records if (one := record["estimates"].get(metric)) is not None]
    if not found:
        return None
    means = {end: sum(one[end] for one in found) / len(found) for end in ("value", "low", "high")}
    return {**means, "percent": _info(records, metric)["percent"]}


def _why_blocked(records: Sequence[Json]) -> str:
    """Why no cell of a defense makes sense here; empty where one does."""
    if any(one["status"] != "blocked" for one in records):
        return ""
    return str((records[0]["error"] or {}).get("message", "no reason was recorded."))


def _heading(words: Sequence[str]) -> str:
    return f"\n{_line(words)}\n|{' --- |' * len(words)}"


def _line(words: Sequence[str]) -> str:
    return f"| {' | '.join(words)} |"


def _rows(records: Sequence[Json]) -> dict[Row, list[Json]]:
    """Records of all seeds by attack and view, controls last."""
    rows = defaultdict[Row, list[Json]](list)
    for one in sorted(records, key=lambda record: record["attack"]["control"]):
        rows[one["attack"]["label"], one["view"]].append(one)
    return dict(rows)


def _state(records: Sequence[Json], metric: str) -> str:
    """The pooled number, or why there is none."""
    value = pooled(records, metric)
    if value is not None or not records:
        return _shown(value)
    status = str(records[0]["status"])
    return "" if status == "ok" else status


def _keys(records: Sequence[Json], stage: str) -> set[str]:
    """Keys of the tasks of a stage that made the models of these cells."""
    models = (model for one in records for model in (one["keys"] or {}).get("models", ()))
    return {model[stage] for model in models if model.get(stage)}


def _shown(estimate: Json | None) -> str:
    return "" if estimate is None else number(estimate, percent=estimate["percent"])


def _title(records: Sequence[Json], metric: str) -> str:
    """A metric's heading; empty where no record has it."""
    info = _info(records, metric)
    return f"{info['title']}{' (%)' if info['percent'] else ''}" if info else ""


def _info(records: Sequence[Json], metric: str) -> Json:
    return next((one["metric_info"][metric] for one in records if metric in one["metric_info"]), {})
