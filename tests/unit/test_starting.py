"""Classifiers that start from a user's file: what is taken, what is refused and in which words, and keys."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from mibench.errors import MibenchError, SuiteError, WeightsError
from mibench.nets import Classifier, NetSpec, build
from mibench.plan import Plan, build_plan
from mibench.recording import Failure, failed_record
from mibench.runner import run
from mibench.starting import start_from
from mibench.store import Store
from mibench.suite import parse_suite
from mibench.weights import read_checkpoint, weights_digest

SUITE = """
name = "one"
metrics = ["aa"]
[data]
private = 3
private_images = 6
test_images = 2
public = 4
public_images = 6
defender = 4
[victim]
net = "small_vgg"
width = 4
recipe = { epochs = 1, batch = 32 }
[judge]
net = "small_resnet"
width = 4
recipe = { epochs = 1, batch = 32 }
[targets]
protected = 1
attacked = 1
bystanders = 1
images = 1
[attacks.mean_face]
[defenses.none]
"""


def net_of(name: str = "small_vgg", *, people: int = 3, seed: int = 1, **spec: Any) -> Classifier:
    made = NetSpec(name=name, num_classes=people, **{"width": 4, "size": 32, **spec})
    return build(made, torch.Generator().manual_seed(seed))


def state_of(net: Classifier) -> dict[str, Tensor]:
    return {name: value.clone().contiguous() for name, value in net.state_dict().items()}


def test_all_but_the_head_is_taken_or_the_head_too() -> None:
    theirs = net_of(seed=2)
    for use, is_taken in (("features", False), ("start", True)):
        ours, before = net_of(), net_of()
        start_from(ours, state_of(theirs), use=use, where="f")  # type: ignore[arg-type]
        for name, value in ours.state_dict().items():
            source = before if name.startswith("head.") and not is_taken else theirs
            assert torch.equal(value, source.state_dict()[name]), name


def test_a_head_of_other_people_does_not_matter_where_it_is_left_out() -> None:
    ours, theirs = net_of(), net_of(seed=2, people=9)
    start_from(ours, state_of(theirs), use="features", where="f")
    name = "stages.0.0.weight"
    assert torch.equal(ours.state_dict()[name], theirs.state_dict()[name])


def test_counters_of_batch_norm_may_be_missing() -> None:
    state = {name: value for name, value in state_of(net_of(seed=2)).items() if "num_batches" not in name}
    assert len(state) < len(net_of().state_dict())
    start_from(net_of(), state, use="start", where="f")


def _missing(state: dict[str, Tensor]) -> None:
    del state["stages.1.0.weight"]


def _misshaped(state: dict[str, Tensor]) -> None:
    state["stages.0.0.weight"] = torch.zeros(8, 3, 3, 3)


def _foreign(state: dict[str, Tensor]) -> None:
    state["bad\nname\x1b[2J\udc80"] = torch.zeros(1)


def _nan(state: dict[str, Tensor]) -> None:
    state["stages.0.0.bias"] = torch.full((4,), torch.nan)


def _integers(state: dict[str, Tensor]) -> None:
    state["stages.0.0.bias"] = torch.zeros(4, dtype=torch.int64)


def _other_people(state: dict[str, Tensor]) -> None:
    state.update({name: value for name, value in net_of(people=9).state_dict().items() if "head" in name})


def _headless(state: dict[str, Tensor]) -> None:
    del state["head.weight"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, r"^weights f\.pt: 'stages\.1\.0\.weight' of small_vgg is missing\."),
        (_misshaped, r"'stages\.0\.0\.weight' has the shape \[8, 3, 3, 3\], small_vgg needs \[4, 3, 3, 3\]"),
        (_foreign, r"'bad\\nname\\x1b\[2J\\udc80' is no part of small_vgg\. "),
        (_nan, r"'stages\.0\.0\.bias' holds NaN or infinite"),
        (_integers, r"'stages\.0\.0\.bias' holds torch\.int64, small_vgg needs torch\.float32"),
        (_other_people, r"'head\.weight' has the shape \[9, 64\], small_vgg needs \[3, 64\]"),
        (_headless, r"'head\.weight' of small_vgg is missing"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_the_net_alone(spoil: Any, words: str) -> None:
    state = state_of(net_of(seed=2))
    spoil(state)
    ours = net_of()
    with pytest.raises(WeightsError, match=words):
        start_from(ours, state, use="ready", where="weights f.pt")
    assert all(torch.equal(value, net_of().state_dict()[name]) for name, value in ours.state_dict().items())


def test_published_names_stand_in_the_messages() -> None:
    theirs = dict(torchvision.models.vgg16(weights=None, init_weights=False, num_classes=2).state_dict())
    plain = net_of("vgg16", width=0)
    with pytest.raises(WeightsError, match=r"torchvision's vgg16 has no head that tells people"):
        start_from(plain, theirs, use="start", where="weights f.pt")
    with pytest.raises(WeightsError, match=r"'features\.2\.weight' has the shape|'features\.1\.weight' of"):
        start_from(net_of("vgg16_bn", width=0), theirs, use="features", where="weights f.pt")
    with pytest.raises(
        WeightsError, match=r"'features\.0\.weight' has the shape \[64, 3, 3, 3\], vgg16 needs"
    ):
        start_from(net_of("vgg16", width=0, channels=1), theirs, use="features", where="weights f.pt")
    theirs["features.40.weight"] = torch.zeros(1)
    with pytest.raises(
        WeightsError, match=r"'features\.40\.weight' is no part of vgg16, under the names of torch"
    ):
        start_from(plain, theirs, use="features", where="weights f.pt")


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ({"input_scale": torch.ones(5, 1, 1), "input_shift": torch.zeros(1, 1, 1)}, "has the shape"),
        ({"input_scale": torch.ones(3, 1, 1)}, "'input_shift' is missing"),
    ],
)
def test_a_scale_of_images_that_no_net_of_ours_has_is_refused(scale: dict[str, Tensor], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        start_from(net_of("vgg16"), {**state_of(net_of("vgg16")), **scale}, use="features", where="f")


def test_a_scale_of_images_in_our_own_state_is_taken() -> None:
    theirs = net_of("vgg16", seed=2)
    theirs.set_input_map((2.0,), (0.5,))
    ours = net_of("vgg16")
    start_from(ours, state_of(theirs), use="features", where="f")
    assert ours.scaled(torch.zeros(1, 3, 2, 2)).unique().tolist() == [-1.5]


def test_checkpoints_are_read_as_training_scripts_leave_them(tmp_path: Path) -> None:
    file, one = tmp_path / "net.pt", torch.ones(2)
    for content in (
        {"a": one},
        {"state_dict": {"a": one}, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model": {"module.a": one}, "best": torch.tensor(0.5)},
        {"module.a": one},
    ):
        torch.save(content, file)
        assert {name: value.tolist() for name, value in read_checkpoint(file).items()} == {"a": [1, 1]}
    torch.save({"model": {"module.a": one, "b": one}}, file)
    assert sorted(read_checkpoint(file)) == ["b", "module.a"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": {}, "state_dict": {}}, "holds tables 'model', 'state_dict', of which several are among"),
        ({"generator\n": {"a": torch.ones(1)}}, r"holds tables 'generator\\n', of which none is among"),
        ({"state_dict": {"a": {"b": torch.ones(1)}}}, "entry 'a' is of type dict, not a tensor"),
        ({"state_dict": {"a": 3}}, "entry 'a' is of type int"),
    ],
)
def test_checkpoints_that_may_be_read_in_two_ways_are_refused(
    content: Any, words: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=words):
        read_checkpoint(tmp_path / "net.pt")


def suite_of(folder: Path, **tables: dict[str, Any]) -> Any:
    raw = tomllib.loads(SUITE)
    for name, values in tables.items():
        raw[name] = {**raw.get(name, {}), **values}
    return parse_suite(raw, where="suite one.toml", folder=folder)


def start_of(plan: Plan, stage: str) -> Any:
    return next(task for task in plan.tasks.values() if task.stage == stage)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(state_of(net_of(seed=2)), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_the_digest_enters_the_key_and_the_path_does_not(file: Path, tmp_path: Path) -> None:
    without = start_of(build_plan(suite_of(tmp_path)), "train")
    task = start_of(build_plan(suite_of(tmp_path, victim={"weights": file.name})), "train")
    assert task.params["start"] == {"weights": weights_digest(file), "use": "features"}
    assert "start" not in without.params
    assert "start" not in without.locator
    assert task.key != without.key
    assert str(tmp_path) not in str(task.params)
    moved = tmp_path / "other"
    moved.mkdir()
    file.rename(moved / "again.pt")
    again = start_of(build_plan(suite_of(moved, victim={"weights": "again.pt"})), "train")
    assert again.key == task.key


def test_a_file_of_another_net_is_told_before_anything_runs(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MibenchError, match=r"net\.safetensors: 'stem.weight' of small_resnet is missing"):
        build_plan(suite_of(tmp_path, judge={"weights": file.name}))


def test_a_public_net_takes_the_features_of_the_victims_file_and_not_its_head(
    file: Path, tmp_path: Path
) -> None:
    victim = {"weights": file.name, "weights_as": "ready"}
    suite = suite_of(tmp_path, victim=victim, public_net={"min_accuracy": 0.1})
    assert (suite.public_net.weights, suite.public_net.weights_as) == (str(file), "features")
    other = suite_of(tmp_path, victim=victim, public_net={"net": "small_resnet"})
    assert other.public_net.weights == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weights_as": "ready"}, "victim: weights_as is 'ready', and no weights are given"),
        ({"weights": "net.safetensors", "weights_as": "all"}, "victim: 'weights_as' is wrong"),
    ],
)
def test_wrong_settings_are_told_with_their_table(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=words):
        suite_of(tmp_path, victim=values)


def test_a_ready_victim_is_the_file_and_a_record_says_so(file: Path, tmp_path: Path) -> None:
    suite = suite_of(tmp_path, victim={"weights": file.name, "weights_as": "ready"})
    plan, store = build_plan(suite), Store(tmp_path / "store")
    run(plan, store, jobs=1)
    train = start_of(plan, "train")
    found = store.get(train.key)
    assert found is not None
    state = net_of(seed=2).state_dict()
    assert sorted(found.tensors) == sorted(state)
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    record = failed_record(plan, plan.cells[0], Failure("train", "X", "y"), torch.device("cpu"))
    assert record.provenance["weights"] == {"victim": weights_digest(file)}


def test_a_scale_of_images_goes_through_defenses_that_wrap_the_net(tmp_path: Path) -> None:
    theirs = net_of("vgg16", seed=2)
    theirs.set_input_map((2.0, 0.5, 1.0), (0.5, 0.1, -0.3))
    save_file(state_of(theirs), tmp_path / "v.safetensors")
    victim = {"net": "vgg16", "width": 4, "weights": "v.safetensors"}
    plan, store = (
        build_plan(suite_of(tmp_path, victim=victim, defenses={"mid": {}})),
        Store(tmp_path / "store"),
    )
    records = run(plan, store, jobs=1)
    assert [record.status for record in records] == ["ok", "ok"]
    states = [store.get(key) for key, task in plan.tasks.items() if task.stage == "train"]
    for state in states:
        assert state is not None
        (scale,) = (value for name, value in state.tensors.items() if name.endswith("input_scale"))
        assert scale.flatten().tolist() == [2.0, 0.5, 1.0]


def test_training_starts_from_the_file(file: Path, tmp_path: Path) -> None:
    slow = {"recipe": {"epochs": 1, "batch": 64, "lr": 1e-12, "weight_decay": 0.0}}
    suite = suite_of(tmp_path, victim={"weights": file.name, **slow})
    plan, store = build_plan(suite), Store(tmp_path / "store")
    run(plan, store, jobs=1)
    found = store.get(start_of(plan, "train").key)
    assert found is not None
    state = net_of(seed=2).state_dict()
    torch.testing.assert_close(
        found.tensors["stages.2.0.weight"], state["stages.2.0.weight"], rtol=1e-5, atol=1e-7
    )
    assert not torch.allclose(found.tensors["head.weight"], state["head.weight"])
