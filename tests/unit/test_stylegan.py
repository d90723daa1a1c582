"""A ready StyleGAN2 as a prior: files, keys, records, and attacks that search it."""

from __future__ import annotations

import dataclasses
import pickle
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mibench import get_attack
from mibench.errors import PluginError, SuiteError, WeightsError
from mibench.nets import seeded
from mibench.nets.stylegan2 import StyleGan2Generator, StyleGan2Shape
from mibench.nets.stylegan2_names import NVIDIA, ROSINALITY, Naming, names_of
from mibench.noise import Noise
from mibench.one_cell import cell_suite, check_cell_suite
from mibench.plan import Plan, build_plan
from mibench.plugin import Context
from mibench.recording import Failure, failed_record
from mibench.runner import run
from mibench.store import Store
from mibench.stylegan import StyleGan2Prior
from mibench.suite import parse_suite
from mibench.weights import weights_digest

SHAPE = (3, 32, 32)
SMALL = StyleGan2Shape(latent_dim=6, w_dim=8, hidden=(8,), widths=(8, 8, 6, 4))
TAKES_IT = ("mirror", "mirror_bb", "ppa", "if_gmi", "c2fmi", "vmi")
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
[attacks.mirror]
presamples = 8
keep = 4
candidates = 2
search = { steps = 3, lr = 0.1 }
prior = { kind = "stylegan2", weights = "g.safetensors", latent_dim = 6, p_samples = 32 }
[defenses.none]
"""


def tensors_of(naming: Naming, seed: int = 1) -> dict[str, Tensor]:
    with seeded(torch.Generator().manual_seed(seed)):
        net = StyleGan2Generator(SMALL)
        net.w_avg.normal_()
    return {theirs: net.state_dict()[ours].contiguous() for ours, theirs in names_of(SMALL, naming)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(tensors_of(NVIDIA), tmp_path / "g.safetensors")
    return tmp_path / "g.safetensors"


def spec_of(file: Path, **fields: Any) -> StyleGan2Prior:
    return StyleGan2Prior(weights=str(file), **{"latent_dim": 6, "p_samples": 64, **fields})


def suite_of(folder: Path, **mirror: Any) -> Any:
    raw = tomllib.loads(SUITE)
    raw["attacks"]["mirror"].update(mirror)
    return parse_suite(raw, where="suite one.toml", folder=folder)


def prior_task(plan: Plan) -> Any:
    return next(task for task in plan.tasks.values() if task.stage == "prior")


def test_the_space_holds_the_generator_of_the_file(file: Path) -> None:
    spec, ctx = spec_of(file, crop=1.0), Context()
    prior = spec.fit(torch.zeros(1, *SHAPE), ctx)
    space = spec.load(prior, SHAPE, ctx)
    w = space.start(Noise.of_targets(0, torch.arange(4)))
    images = space.decode(w)
    assert images.shape == (4, *SHAPE)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert bool((space.low < space.high).all())
    assert torch.equal(space.truncate(w, 0.0)[0], tensors_of(NVIDIA)["mapping.w_avg"])
    assert not any(one.requires_grad for one in space.g.parameters())
    other = spec.load({**prior, "starts": torch.zeros(3)}, (1, 48, 48), ctx)
    assert other.decode(w).shape == (4, 1, 48, 48)


def test_the_fields_of_the_search_change_the_images_and_not_what_is_stored(file: Path) -> None:
    plain = spec_of(file)
    assert plain.training_params() == {"weights": weights_digest(file), "latent_dim": 6}
    prior, w = plain.fit(torch.empty(0), Context()), torch.ones(1, 8)
    found = plain.load(prior, SHAPE, Context()).decode(w)
    for change in ({"crop": 0.5}, {"noise": "none"}):
        other = spec_of(file, **change)
        assert other.training_params() == plain.training_params()
        same = torch.equal(other.load(prior, SHAPE, Context()).decode(w), found)
        # a fresh generator has noise of strength 0
        assert same is ("noise" in change)
    tight = spec_of(file, kappa=0.5).load(prior, SHAPE, Context())
    assert bool((tight.spread < plain.load(prior, SHAPE, Context()).spread).all())


def test_a_checkpoint_of_training_has_its_mean_estimated(tmp_path: Path) -> None:
    tensors = tensors_of(ROSINALITY)
    mean = tensors.pop("latent_avg")
    torch.save({"g": {}, "g_ema": tensors, "g_optim": {"state": {}}}, tmp_path / "a.pt")
    torch.save({"g_ema": tensors, "latent_avg": mean}, tmp_path / "b.pt")
    a, b = (spec_of(tmp_path / name).fit(torch.empty(0), Context()) for name in ("a.pt", "b.pt"))
    assert torch.equal(b["g.w_avg"], mean)
    space = spec_of(tmp_path / "a.pt").load(a, SHAPE, Context())
    w = space.start(Noise.of_targets(0, torch.arange(4_000)))
    torch.testing.assert_close(a["g.w_avg"], w.mean(0), rtol=0.1, atol=0.05)


def test_no_critic_is_an_error_and_no_zero(file: Path) -> None:
    spec = spec_of(file)
    space = spec.load(spec.fit(torch.empty(0), Context()), SHAPE, Context())
    with pytest.raises(PluginError, match="comes without a critic"):
        space.realism(torch.zeros(1, *SHAPE))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"G_ema": Path()}))


def _torn(path: Path) -> None:
    save_file(tensors_of(NVIDIA), path)
    path.write_bytes(path.read_bytes()[:-7])


def _code(path: Path) -> None:
    torch.save({"g_ema": Path()}, path)


def _nested(path: Path) -> None:
    torch.save({"g_ema": {"inner": {"a": torch.ones(1)}}}, path)


def _unknown(path: Path) -> None:
    torch.save({"generator": tensors_of(NVIDIA)}, path)


def _other_net(path: Path) -> None:
    save_file({"features.0.weight": torch.ones(2)}, path)


def _none(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (_pickle, r"A pickle of objects is a program, which is not run here;.+docs/weights\.md"),
        (_torn, "is no sound safetensors file"),
        (_code, "cannot be read as tensors alone"),
        (_nested, "entry 'inner' is of type dict"),
        (_unknown, "holds tables 'generator', of which none is among g_ema"),
        (_other_net, r"has neither .+ \(its first names: 'features\.0\.weight'\)"),
        (_none, "cannot be read"),
    ],
)
def test_files_that_hold_no_generator_are_told_before_anything_runs(
    write: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    write(tmp_path / "g.safetensors")
    with pytest.raises(WeightsError, match=words):
        build_plan(suite_of(tmp_path))


def test_another_length_of_z_says_what_to_write(file: Path) -> None:
    with pytest.raises(WeightsError, match=r"z has 6 numbers, .+ asks for 7\. Set prior\.latent_dim = 6\."):
        spec_of(file, latent_dim=7).fit(torch.empty(0), Context())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prior": {"kind": "stylegan2"}}, r"field 'prior\.weights' is missing"),
        ({"prior": {"kind": "stylegan2", "weights": ""}}, "weights is empty"),
        (
            {"prior": {"kind": "stylegan2", "weights": "g", "crop": 0.0}},
            r"crop must lie in \(0, 1\], got 0\.0",
        ),
        (
            {"prior": {"kind": "stylegan2", "weights": "g", "steps": 3}},
            r"no field 'prior\.steps'.+ weights, latent",
        ),
        ({"prior": {"kind": "stylegan3"}}, r"unknown kind 'stylegan3'\. Its kinds: style, stylegan2\."),
        (
            {"penalty": {"critic": 0.1}},
            r"mirror: penalty\.critic is 0\.1, and prior 'stylegan2' has no critic",
        ),
    ],
)
def test_wrong_settings_are_told_in_the_suite(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=words):
        suite_of(tmp_path, **fields)


@pytest.mark.parametrize("name", TAKES_IT)
def test_attacks_take_it_and_bring_it_back_from_json(name: str) -> None:
    table = {"kind": "stylegan2", "weights": "a" * 64, "latent_dim": 16}
    attack = get_attack(name).from_params({"prior": table})
    assert isinstance(attack.prior_spec(), StyleGan2Prior)
    params = attack.params()
    assert params["prior"]["kind"] == "stylegan2"
    assert type(attack).from_params(params) == attack
    assert attack.key_params()["prior"] == params["prior"]
    plain = get_attack(name)()
    assert "kind" not in plain.params()["prior"]
    small = get_attack(name).from_params({"prior": {"kind": "style", "steps": 3}})
    assert small == get_attack(name).from_params({"prior": {"steps": 3}})


def test_the_critic_of_ppa_is_refused_too() -> None:
    table = {"kind": "stylegan2", "weights": "a" * 64}
    with pytest.raises(ValueError, match="ppa: critic_weight is 1"):
        get_attack("ppa").from_params({"prior": table, "critic_weight": 1.0})


def test_keys_hold_the_digest_and_neither_path_nor_public_images(file: Path, tmp_path: Path) -> None:
    plan = build_plan(suite_of(tmp_path))
    task = prior_task(plan)
    assert task.params == {"spec": {"weights": weights_digest(file), "latent_dim": 6}}
    assert task.inputs == {}
    assert all(str(tmp_path) not in str(one.params) for one in plan.tasks.values())
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    file.rename(moved / "g.safetensors")
    again = build_plan(suite_of(moved))
    assert sorted(again.tasks) == sorted(plan.tasks)
    save_file(tensors_of(NVIDIA, seed=2), moved / "g.safetensors")
    assert prior_task(build_plan(suite_of(moved))).key != task.key


def test_an_attack_runs_on_a_file_and_its_record_tells_no_path(file: Path, tmp_path: Path) -> None:
    plan, store = build_plan(suite_of(tmp_path)), Store(tmp_path / "store")
    run(plan, store, jobs=1)
    (cell,) = plan.cells
    found = store.get(cell.models[0].invert)
    assert found is not None
    assert found.tensors["images"].float().std() > 0
    assert store.get(cell.measure) is not None
    record = failed_record(plan, cell, Failure("invert", "X", "y"), torch.device("cpu"))
    assert record.attack["params"]["prior"]["weights"] == weights_digest(file)
    assert str(tmp_path) not in record.to_json()


def test_every_attack_that_takes_it_runs(file: Path, tmp_path: Path) -> None:
    raw = tomllib.loads(SUITE)
    prior, search = raw["attacks"]["mirror"]["prior"], {"steps": 2, "lr": 0.01}
    robust = {"search": search, "presamples": 8, "keep": 4, "candidates": 2, "rounds": 2}
    settings: dict[str, dict[str, Any]] = {
        "mirror_bb": {"population": 4, "generations": 2, "presamples": 8},
        "ppa": robust,
        "if_gmi": {**robust, "block_steps": [2, 2], "radii": [1.0, 1.0], "single_w": False},
        "c2fmi": {
            "embedding": {"width": 4, "dim": 8, "recipe": {"epochs": 1, "batch": 32}},
            "mapping": {"hidden": 8, "epochs": 1},
            "search": search,
            "starts": 4,
            "survivors": 3,
            "population": 4,
            "generations": 2,
        },
        "vmi": {"search": search, "samples": 2, "flow_steps": 1, "flow_levels": 1, "flow_hidden": 4},
    }
    assert {"mirror", *settings} == set(TAKES_IT)
    raw["attacks"] = {name: {**fields, "prior": prior} for name, fields in settings.items()}
    records = run(build_plan(parse_suite(raw, where="s", folder=tmp_path)), Store(tmp_path / "store"), jobs=1)
    assert [(record.attack["label"], record.error) for record in records] == [
        (name, None) for name in settings
    ]


def test_a_cell_of_it_is_a_suite_of_its_own(file: Path, tmp_path: Path) -> None:
    plan = build_plan(suite_of(tmp_path))
    (cell,) = plan.cells
    folder = tmp_path / "results" / "one" / "cells" / cell.id
    text = cell_suite(plan, cell, folder)
    assert 'weights = "../../../../g.safetensors"' in text
    assert 'kind = "stylegan2"' in text
    check_cell_suite(text, plan, cell, folder)
    assert str(tmp_path) not in cell_suite(plan, cell, Path("/elsewhere"))


def test_a_file_that_changes_after_the_plan_is_refused(file: Path, tmp_path: Path) -> None:
    plan = build_plan(suite_of(tmp_path))
    save_file(tensors_of(NVIDIA, seed=2), file)
    (record,) = run(plan, Store(tmp_path / "store"), jobs=1)
    assert record.error is not None
    assert "its file has changed since the plan" in record.error["message"]


def test_a_defense_that_asks_a_critic_is_blocked(file: Path, tmp_path: Path) -> None:
    raw = tomllib.loads(SUITE)
    raw["defenses"]["netguard"] = {}
    (blocked,) = (
        cell for cell in build_plan(parse_suite(raw, where="s", folder=tmp_path)).cells if cell.blocked
    )
    assert "has no critic" in blocked.blocked


def test_seeds_share_it(file: Path, tmp_path: Path) -> None:
    suite = dataclasses.replace(suite_of(tmp_path), seeds=(0, 1))
    assert len([task for task in build_plan(suite).tasks.values() if task.stage == "prior"]) == 1
