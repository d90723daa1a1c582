"""How the time of each part grows with what it works on: a wrong algorithm shows in the exponent.

    OMP_NUM_THREADS=1 pytest benchmarks/test_growth.py --benchmark-enable --benchmark-json FILE

In `extra_info` stand seconds of CPU time by size, their exponent (the slope of log time over log size) and
the bound that it is held to. A fixed cost makes an exponent smaller, so that only bounds from above are
meant; those of parts that are linear lie at 1.3, which leaves room for a busy machine.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from mibench.attack import Attack, Reconstructions
from mibench.data.split import Labeled, Split
from mibench.data.synthetic import SynthFacesData
from mibench.data.synthfaces import SynthFaces
from mibench.defense import DefenderView
from mibench.estimate import Estimates
from mibench.live import Live
from mibench.metric import Case
from mibench.nets import Classifier, NetSpec, build
from mibench.plan import Plan, build_plan
from mibench.plugin import Context
from mibench.record import Record, read_records, write_records
from mibench.registry import get_attack, get_defense, get_metric
from mibench.report import comparison
from mibench.runner import TaskDone, TaskStarted, run
from mibench.store import Artifact, Store
from mibench.suite import parse_suite
from mibench.training import Recipe, fit
from mibench.victim import WhiteBoxVictim, freeze
from mibench.worker import Job, Outcome

Grow = Callable[..., None]
LINEAR, SQUARE = 1.3, 2.3
CLASSES, FEATURES, PEOPLE = 40, 64, 10
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "record-2.jsonl"
CELLS = (50, 200, 800)
WALKED = (20, 200, 1000)  # of five tasks each: 100, 1000 and 5000 tasks


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plan_of(cells: int) -> Plan:
    """A plan of so many cells, each with a net, a reconstruction and a measurement of its own."""
    tables: dict[str, Any] = {
        "name": "growth",
        "seeds": list(range(cells)),
        "metrics": ["aa"],
        "data": {"size": 16, "private": 3, "public": 4, "defender": 2},
        "targets": {"protected": 1, "bystanders": 1, "attacked": 2, "images": 2},
        "victim": {"net": "mlp", "width": 8, "recipe": {"epochs": 1}},
        "judge": {"net": "softmax_regression", "recipe": {"epochs": 1}},
        "attacks": {"mean_face": {}},
        "defenses": {"none": {}},
    }
    return build_plan(parse_suite(tables, where="suite growth.toml"))


class Nothing:
    """An executor whose tasks do nothing but leave an artifact: what then takes time is the harness."""

    jobs = 1

    def __init__(self, store: Store) -> None:
        self.store, self.ended = store, list[tuple[Job, Outcome | None]]()
        hits: dict[str, Any] = {
            "hits": {"0": "01"},
            "effort": [],
            "restarts": None,
            "rise": None,
            "silent_gradients": None,
        }
        self.measured = {
            "estimates": {"aa": {"value": 0.5, "low": 0.1, "high": 0.9, "count": 2}},
            **{"judge_accuracy": 1.0, "audit_accuracy": None, "queries": {}, "notes": {}},
            **{"scrutiny": hits, "provenance": {}},
        }

    def submit(self, job: Job) -> None:
        value = self.measured if job.task.stage == "measure" else {}
        self.store.put(job.task.key, Artifact({}, value, job.task.description()))
        self.ended.append((job, Outcome(job.task.key)))

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self) -> None:
        self.ended.clear()


def records_of(count: int) -> list[Record]:
    """Records of 20 attacks on 25 defenses in as many seeds as it takes."""
    content = json.loads(GOLDEN.read_text(encoding="utf-8").splitlines()[0])
    found = []
    for number in range(count):
        cell = {"cell": f"{number:012x}", "seed": number // 500}
        attack = {**content["attack"], "label": f"attack-{number % 20}", "control": False}
        defense = {**content["defense"], "label": f"defense-{number // 20 % 25}"}
        found.append(Record.from_json(json.dumps({**content, **cell, "attack": attack, "defense": defense})))
    return found


class Looker(Classifier):
    """A judge whose features are the pixels."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="pixels", channels=1, size=FEATURES, num_classes=PEOPLE))
        self.feature_dim = FEATURES
        self.head = nn.Linear(FEATURES, PEOPLE)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1),)


def case_of(count: int) -> Case:
    """A cell of `count` reconstructions and 500 real images of 10 people, of 64 features."""
    draw, judge = generator(), Looker()
    freeze(judge)
    real = Labeled(torch.rand(500, 1, 1, FEATURES, generator=draw), torch.arange(500) % PEOPLE)
    images = torch.rand(count, 1, 1, FEATURES, generator=draw)
    got = Reconstructions.collect(images, torch.arange(count) % PEOPLE)
    everyone = torch.ones(count, dtype=torch.bool)
    return Case(got, everyone, (), real, real, real, judge)


def victim(size: int, *, name: str = "small_vgg") -> Classifier:
    return build(NetSpec(name=name, width=8, size=size, num_classes=CLASSES), generator())


def held(size: int) -> WhiteBoxVictim:
    net = victim(size)
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net)


def noise_of(count: int, size: int) -> Labeled:
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator(), dtype=torch.uint8)
    return Labeled(images, torch.arange(count) % CLASSES)


def test_harness_over_cells(grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # waiting for the disk takes no CPU time, but long
    number = itertools.count()

    def make(cells: int) -> Callable[[], object]:
        plan = plan_of(cells)

        def walk() -> None:
            folder = tmp_path / str(next(number))
            store = Store(folder / "store")
            records = run(plan, store, results=folder, executor=lambda _: Nothing(store))
            assert [record.status for record in records] == ["ok"] * cells

        return walk

    grow(make, WALKED, most=LINEAR, of="cells", unit="cells", rounds=1)


def test_display_over_tasks(grow: Grow) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)

    def make(cells: int) -> Callable[[], object]:
        plan = plan_of(cells)

        def watch() -> None:
            live = Live(plan, console, jobs=1, estimates=Estimates("cpu"), todo=set(plan.tasks))
            for task in plan.tasks.values():
                live(TaskStarted(task))
                live(TaskDone(task, "hit"))

        return watch

    grow(make, (20, 200, 800), most=LINEAR, of="cells", unit="cells", rounds=1)


def test_plan_over_cells(grow: Grow) -> None:
    grow(lambda cells: lambda: plan_of(cells), CELLS, most=LINEAR, of="cells", unit="cells")


def test_put_over_bytes(grow: Grow, tmp_path: Path) -> None:
    number = itertools.count()

    def make(size: int) -> Callable[[], object]:
        artifact = Artifact({"x": torch.zeros(size, dtype=torch.uint8)})
        return lambda: Store(tmp_path / str(next(number))).put("0" * 64, artifact)

    grow(make, (2**18, 2**20, 2**22, 2**24), most=LINEAR, of="bytes", unit="bytes")


def test_get_over_bytes(grow: Grow, tmp_path: Path) -> None:
    def make(size: int) -> Callable[[], object]:
        store = Store(tmp_path / str(size))
        store.put("0" * 64, Artifact({"x": torch.zeros(size, dtype=torch.uint8)}))
        return lambda: store.get("0" * 64)

    grow(make, (2**18, 2**20, 2**22, 2**24), most=LINEAR, of="bytes", unit="bytes")


def test_table_over_records(grow: Grow) -> None:
    def make(count: int) -> Callable[[], object]:
        records = records_of(count)
        return lambda: comparison(records).to_rich()

    grow(make, (100, 1000, 10_000), most=LINEAR, of="records", unit="records")


def test_read_over_records(grow: Grow, tmp_path: Path) -> None:
    def make(count: int) -> Callable[[], object]:
        file = tmp_path / f"{count}.jsonl"
        write_records(file, records_of(count))
        return lambda: read_records(file)

    grow(make, (100, 1000, 10_000), most=LINEAR, of="records", unit="records")


def test_write_over_records(grow: Grow, tmp_path: Path) -> None:
    def make(count: int) -> Callable[[], object]:
        records = records_of(count)
        return lambda: write_records(tmp_path / "records.jsonl", records)

    grow(make, (100, 1000, 10_000), most=LINEAR, of="records", unit="records")


METRICS: dict[str, tuple[tuple[int, ...], float, dict[str, Any]]] = {
    "aa": ((100, 1000, 10_000), LINEAR, {}),
    "fid": ((100, 1000, 10_000), LINEAR, {}),
    # subsets bound its work, so that it grows as the square up to their size and not at all beyond
    "kid": ((100, 300, 1000, 10_000), SQUARE, {"subsets": 3}),
    "precision": ((100, 1000, 10_000), LINEAR, {}),
    "density": ((100, 1000, 10_000), LINEAR, {}),
    "coverage": ((100, 1000, 10_000), LINEAR, {}),
    # the balls are those of reconstructions here, each as far as one of all the others
    "recall": ((100, 500, 2500), SQUARE, {}),
    "knn_distance": ((100, 1000, 10_000), LINEAR, {}),
    "mean_feature_distance": ((100, 1000, 10_000), LINEAR, {}),
}


@pytest.mark.parametrize("name", METRICS)
def test_metric_over_reconstructions(grow: Grow, name: str) -> None:
    sizes, most, params = METRICS[name]
    metric = get_metric(name).from_params(params)

    def make(count: int) -> Callable[[], object]:
        case = case_of(count)
        assert metric.measure(case, Context()) is not None
        return lambda: metric.measure(case, Context())

    grow(make, sizes, most=most, of="reconstructions", unit="images")


def test_faces_over_images(grow: Grow) -> None:
    world = SynthFaces(size=32)
    grow(
        lambda count: lambda: world.render(torch.arange(count), torch.arange(count) % 4),
        (16, 64, 256), most=LINEAR, of="images", unit="images",
    )  # fmt: skip


def test_faces_over_size(grow: Grow) -> None:
    people = torch.arange(16)
    grow(
        lambda size: lambda: SynthFaces(size=size).render(people, people % 4),
        (16, 32, 64, 128), most=SQUARE, of="pixels of a side",
    )  # fmt: skip


def test_split_over_identities(grow: Grow) -> None:
    def make(people: int) -> Callable[[], object]:
        data = SynthFacesData(private=people, public=people, defender=people)
        labels = torch.arange(people).repeat_interleave(4)
        pixels = torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8)
        test = torch.arange(len(labels)) % 4 == 0

        def divide() -> Split:
            names = data.identities()
            private, other = (Labeled(pixels, labels, names[part]) for part in ("private", "defender"))
            train, rest = (private.subset(rows.nonzero().flatten()) for rows in (~test, test))
            public = torch.zeros(1, 1, 4, 4)
            return Split(train, rest, public, names["public"], other, people).check()

        return divide

    grow(make, (100, 1000, 10_000), most=LINEAR, of="identities", unit="identities")


def test_training_over_images(grow: Grow) -> None:
    def make(count: int) -> Callable[[], object]:
        data = noise_of(count, 16)
        return lambda: fit(victim(16), data, Context(), recipe=Recipe(epochs=1, batch=32))

    grow(make, (64, 128, 256, 512), most=LINEAR, of="images", unit="images")


def test_training_over_size(grow: Grow) -> None:
    def make(size: int) -> Callable[[], object]:
        data = noise_of(32, size)
        return lambda: fit(victim(size), data, Context(), recipe=Recipe(batch=32), steps=1)

    grow(make, (16, 32, 64), most=SQUARE, of="pixels of a side")


def latent_attack(name: str, restarts: int) -> Attack[WhiteBoxVictim]:
    """An attack on untrained generators of 16 pixels, for two steps."""
    prior: dict[str, Any] = {"latent_dim": 16, "width": 8, "critic_width": 8, "steps": 0}
    params: dict[str, Any] = {"prior": prior, "search": {"steps": 2, "lr": 0.05}}
    if name == "gmi":
        return get_attack(name).from_params({**params, "restarts": restarts})
    prior.update({"w_dim": 16, "p_samples": 100})
    return get_attack(name).from_params({**params, "candidates": restarts, "presamples": 32, "keep": 16})


@pytest.mark.parametrize("over", ["targets", "restarts"])
@pytest.mark.parametrize("name", ["gmi", "mirror"])
def test_latent_attack(grow: Grow, name: str, over: str) -> None:
    model, public = held(16), torch.zeros(1, 3, 16, 16)

    def make(count: int) -> Callable[[], object]:
        attack = latent_attack(name, count if over == "restarts" else 1)
        prior = attack.adapt_prior(attack.learn_prior(public, Context()), model, public, Context())
        targets = torch.arange(count if over == "targets" else 4)
        return lambda: attack.invert(model, prior, targets, Context())

    sizes = (4, 16, 40) if over == "targets" else (1, 4, 16)
    grow(make, sizes, most=LINEAR, of=over, unit=over)


def test_mi_face_over_size(grow: Grow) -> None:
    def make(size: int) -> Callable[[], object]:
        attack = get_attack("mi_face").from_params({"max_iter": 4, "loss": "ce", "init": "mean"})
        model, public = held(size), torch.full((1, 3, size, size), 0.5)
        prior = attack.adapt_prior(attack.learn_prior(public, Context()), model, public, Context())
        return lambda: attack.invert(model, prior, torch.arange(8), Context())

    grow(make, (16, 32, 64), most=SQUARE, of="pixels of a side")


def test_dp_sgd_over_batch(grow: Grow) -> None:
    def make(batch: int) -> Callable[[], object]:
        params = {"epochs": 1, "batch": batch, "noise_multiplier": 1.0, "max_physical_batch": batch}
        defense, data = get_defense("dp_sgd").from_params(params), noise_of(batch, 16)
        recipe = Recipe(epochs=1, batch=batch)
        view = DefenderView(private_train=data, public=data, targets=torch.arange(2), recipe=recipe)
        return lambda: defense.train(defense.prepare(victim(16)), view, Context())

    grow(make, (16, 64, 256), most=LINEAR, of="images of a batch", unit="images")
