"""Spaces of faces: what a suite may ask for, what enters a key, and whose images shape them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from facenet_pytorch import InceptionResnetV1, fixed_image_standardization
from safetensors.torch import save_file
from torch import Tensor

from mibench.contract.toy import context, toy_world
from mibench.embedder import PRETRAINED, embed, facenet_state, of_classifier, of_facenet
from mibench.errors import SuiteError, WeightsError
from mibench.key import Key
from mibench.nets.seeding import seeded
from mibench.plan import Plan, build_plan
from mibench.record import Record
from mibench.runner import run
from mibench.stages import execute
from mibench.stages.work import POINTS, embedder_of
from mibench.store import Artifact, Store
from mibench.suite import Suite, parse_suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]
AUDITED = ["aa", "aa_audit", "agreement", "aa_agreed", "aa_embedder", "aa_robust", "private_gap"]
SMALL: dict[str, Any] = {"net": "mlp", "width": 8, "recipe": {"epochs": 2, "batch": 8}}


@pytest.fixture(scope="module")
def package() -> InceptionResnetV1:
    """The package's own net with random weights and moved statistics."""
    with seeded(torch.Generator()):
        net = InceptionResnetV1(pretrained=None, classify=False)
        net(torch.rand(4, 3, 80, 80))
    return net.eval()


@pytest.fixture(scope="module")
def file(package: InceptionResnetV1, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights with the classes of a training, as the package's own files have them."""
    path = tmp_path_factory.mktemp("weights") / "faces.safetensors"
    heads = {"logits.weight": torch.zeros(2, 512), "logits.bias": torch.zeros(2)}
    save_file({**package.state_dict(), **heads}, path)
    return path


def tasks(plan: Plan, stage: str) -> list[Task]:
    return [task for task in plan.tasks.values() if task.stage == stage]


def measures(suite: Suite) -> set[Key]:
    return {cell.measure for cell in build_plan(suite).cells}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"metrics": ["aa", "aa_audit"]}, "metrics: 'aa_audit' needs the table [audit]. Add it, or drop"),
        ({"metrics": ["private_gap"]}, "metrics: 'private_gap' needs the table [embedder]. Add it, or drop"),
        ({"embedder": {"net": "mpl"}}, "embedder: unknown network 'mpl'. Did you mean 'mlp'?"),
        (
            {"embedder": {"net": "mlp", "weigths": "a"}},
            "embedder: no field 'weigths'. Did you mean 'weights'?",
        ),
        ({"embedder": {"net": "mlp", "weights": "a"}}, f"weights are read for net '{PRETRAINED}' alone"),
        (
            {"embedder": {"net": PRETRAINED, "weights": "a", "recipe": {"epochs": 3}}},
            "width and recipe train a net, and weights are those of a trained one",
        ),
        ({"embedder": 3}, "embedder: must be a table, got 3"),
    ],
)
def test_mistakes_name_their_place(make_suite: MakeSuite, tables: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        make_suite(**tables)
    assert message in str(caught.value)
    assert str(caught.value).startswith("suite toy.toml")


def test_only_what_a_metric_needs_enters_the_key_of_a_measurement(make_suite: MakeSuite) -> None:
    plain = measures(make_suite())
    assert measures(make_suite(embedder=SMALL)) == plain
    assert not tasks(build_plan(make_suite(embedder=SMALL)), "embedder")
    asked = build_plan(make_suite(embedder=SMALL, metrics=["aa", "aa_embedder"]))
    (space,) = tasks(asked, "embedder")
    (measure,) = tasks(asked, "measure")
    assert measure.inputs["embedder"] == space.key
    assert "public" not in measure.inputs
    (wider,) = tasks(build_plan(make_suite(embedder=SMALL, metrics=["private_gap"])), "measure")
    assert "public" in wider.inputs


def test_all_seeds_share_the_space_which_private_people_do_not_shape(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(embedder=SMALL, metrics=["aa_embedder"], seeds=[0, 1]))
    (space,) = tasks(plan, "embedder")
    assert space.params["net"]["num_classes"] == plan.suite.data.defender
    assert space.seed == 0


def test_ready_weights_are_named_by_their_content(make_suite: MakeSuite, file: Path, tmp_path: Path) -> None:
    def key(path: Path) -> Key:
        table = {"net": PRETRAINED, "weights": str(path)}
        (task,) = tasks(build_plan(make_suite(embedder=table, metrics=["aa_embedder"])), "embedder")
        assert str(path) not in str(task.description())
        return task.key

    (tmp_path / "moved.safetensors").symlink_to(file)
    assert key(tmp_path / "moved.safetensors") == key(file)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    assert key(other) != key(file)
    with pytest.raises(WeightsError, match="cannot be read"):
        key(tmp_path / "missing.safetensors")


def test_a_path_of_weights_is_relative_to_the_suite() -> None:
    raw = {
        "name": "mini",
        "metrics": ["aa"],
        "data": {"private": 4},
        "victim": {"net": "mlp"},
        "judge": {"net": "mlp"},
        "attacks": {"mean_face": {}},
        "defenses": {"none": {}},
        "embedder": {"net": PRETRAINED, "weights": "faces.pt"},
    }
    suite = parse_suite(raw, where="suite mini.toml", folder=Path("/somewhere"))
    assert suite.embedder is not None
    assert suite.embedder.weights == "/somewhere/faces.pt"


def test_points_have_length_one_and_follow_the_features() -> None:
    world = toy_world()
    space = of_classifier(world.public_net)
    points = embed(space, world.test.images, max_batch=7)
    features = world.public_net.features(world.test.images)
    assert torch.allclose(points.norm(dim=1), torch.ones(len(points)), atol=1e-6)
    assert torch.allclose(points, features / features.norm(dim=1, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_ready_weights_give_the_packages_own_points(
    package: InceptionResnetV1, file: Path, channels: int
) -> None:
    space = of_facenet(facenet_state(package.state_dict(), where="weights"), where="weights")
    x = torch.rand(2, channels, 96, 96, generator=context("faces").generator("x"))
    with torch.no_grad():
        theirs: Tensor = package(fixed_image_standardization(x.expand(-1, 3, -1, -1) * 255))
    assert torch.allclose(embed(space, x, max_batch=2), theirs, atol=1e-5)
    small = torch.rand(1, channels, 16, 16, generator=context("faces").generator("small"))
    assert embed(space, small, max_batch=1).shape == (1, 512)


def test_weights_of_another_net_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"weights faces\.pt: 'conv2d_1a\.conv\.weight' of \w+ is missing"):
        facenet_state({"layer": torch.zeros(1)}, where="weights faces.pt")


def made(plan: Plan, folder: Path) -> Artifact:
    """The artifact of the plan's embedder, made with what it depends on."""
    store = Store(folder / "store")
    (space,) = tasks(plan, "embedder")
    for key in [*(key for key in plan.tasks if key in plan.ancestors(space.key)), space.key]:
        store.put(key, execute(plan.tasks[key], store, device=torch.device("cpu"), scratch=folder))
    found = store.get(space.key)
    assert found is not None
    return found


def test_the_stage_keeps_where_images_lie(make_suite: MakeSuite, file: Path, tmp_path: Path) -> None:
    for table in (SMALL, {"net": PRETRAINED, "weights": str(file)}):
        plan = build_plan(make_suite(embedder=table, metrics=["private_gap"]))
        found = made(plan, tmp_path / table["net"])
        space = embedder_of(found, torch.device("cpu"))
        private, _ = plan.suite.data.load("private")
        public, _ = plan.suite.data.load("public")
        for part, images in (("private", private.images), ("public", public.images)):
            again = embed(space, images, max_batch=256)
            assert torch.allclose(found.tensors[f"{POINTS}{part}"], again, atol=1e-5)
        assert 0 <= found.value["accuracy"] <= 1


def test_a_file_that_changed_after_the_plan_is_refused(make_suite: MakeSuite, tmp_path: Path) -> None:
    path = tmp_path / "faces.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    plan = build_plan(make_suite(embedder={"net": PRETRAINED, "weights": str(path)}, metrics=["aa_embedder"]))
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="not the one that was planned with"):
        made(plan, tmp_path)


def test_a_run_records_every_second_opinion(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(embedder={**SMALL, "min_accuracy": 1.0}, audit=SMALL, metrics=AUDITED)
    records: list[Record] = run(build_plan(suite), Store(tmp_path / "store"), results=tmp_path)
    (record,) = records
    assert record.status == "ok"
    assert set(record.estimates) == set(AUDITED)
    assert set(record.scrutiny["second_hits"]) == {"audit", "embedder"}
    for opinion, metric in (("audit", "aa_audit"), ("embedder", "aa_embedder")):
        bits = record.scrutiny["second_hits"][opinion]
        assert {label: len(line) for label, line in bits.items()} == {
            label: len(line) for label, line in record.hits.items()
        }
        estimate = record.estimates[metric]
        assert estimate is not None
        hits = "".join(bits.values())
        assert estimate["value"] == hits.count("1") / len(hits)
    assert record.judge["embedder_net"] == "mlp"
    assert 0 <= record.judge["embedder_accuracy"] <= 1
    assert ("embedder_below_gate" in record.flags) == (record.judge["embedder_accuracy"] < 1)


def test_a_record_without_second_opinions_is_as_it_was(make_suite: MakeSuite, tmp_path: Path) -> None:
    (record,) = run(build_plan(make_suite()), Store(tmp_path / "store"), results=tmp_path)
    assert "second_hits" not in record.scrutiny
    assert "embedder_net" not in record.judge
