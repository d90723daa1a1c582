"""The suites of the paper's size: every value has its source, they plan, and they run when scaled down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mibench.data.folder import FolderData
from mibench.errors import DataError
from mibench.plan import build_plan
from mibench.runner import run
from mibench.store import Store
from mibench.suite import SUITES, Suite, list_suites, load_suite, parse_suite

FOLDERS = {"celeba-64": (64, 32), "vggface-112": (112, 32), "vggface2-224": (224, 16)}
NAMES = ("bench-64", *FOLDERS)
NETS = ("victim", "judge", "audit", "embedder")
ATTACKS = ["mi_face", "dmi", "mirror", "ami", "untrained_prior", "mean_face", "nearest_public"]
DEFENSES = ["none", "dp_sgd", "ad_mi", "gan_d", "gan_id"]
VARIANTS = [
    "random_fake",
    "netguard",
    "gan_d_pri",
    "gan_d_pri_pub",
    "gan_id_ce",
    "gan_id_pri",
    "gan_id_pri_pub",
    "gan_id_cgan",
    "gan_id_infogan",
]
SOURCES = (
    "TIFS", "KED-MI", "Mirror", "AMI", "GMI", "LOMMA", "CCS 2015", "ours", "one sub-folder", "defaults"
)  # fmt: skip


def text_of(name: str) -> str:
    return (SUITES / f"{name}.toml").read_text(encoding="utf-8")


def raw_of(name: str) -> dict[str, Any]:
    return tomllib.loads(text_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_source(name: str) -> None:
    lines = [line for line in text_of(name).splitlines() if re.match(r"\S", line) and line[0] not in "#[]"]
    without = [line for line in lines if not any(word in line.partition(" # ")[2] for word in SOURCES)]
    assert len(lines) > 30
    assert without == []


def test_the_page_of_suites_has_their_sizes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    told = {
        name: (int(size), [int(count) for count in people.split(", ")])
        for name, size, people in re.findall(
            r"^\| `([\w-]+)` \| (\d+) px \| ([\d, ]+) \|", page, re.MULTILINE
        )
    }
    assert sorted(told) == list_suites()
    for name, (size, people) in told.items():
        data = raw_of(name)["data"]
        assert size == data.get("size", 32)
        assert people == [data[part] for part in ("private", "public", "defender")]


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_is_that_of_the_papers_tables(name: str) -> None:
    suite = load_suite(name)
    assert [one.label for one in suite.attacks] == ATTACKS
    assert [one.label for one in suite.defenses] == DEFENSES
    assert [one.label for one in suite.more.defenses] == VARIANTS
    assert suite.white_box == ("stripped", "deployed")
    assert (suite.data.private, suite.victim.net, suite.judge.net) == (1000, "vgg16_bn", "ir50")
    assert (suite.victim.recipe.optimizer, suite.victim.recipe.lr) == ("sgd", 0.01)
    assert suite.audit is not None
    assert suite.audit.net not in {suite.victim.net, suite.judge.net}


@pytest.mark.parametrize("name", NAMES)
def test_the_ablations_drop_the_terms_that_the_paper_drops(name: str) -> None:
    more = {one.label: one.plugin.key_params() for one in load_suite(name).more.defenses}
    for kind in ("d", "id"):
        push, both = more[f"gan_{kind}_pri"], more[f"gan_{kind}_pri_pub"]
        assert push["beta"] == 0
        assert both["beta"] > 0
        assert {one[field] for one in (push, both) for field in ("ewc_weight", "replay_fraction")} == {0}
    for label in ("gan_id_ce", "gan_id_pri", "gan_id_pri_pub"):
        assert more[label]["gamma"] == 0
        assert more[label]["alpha"] == more["netguard"]["alpha"]
    kinds = [more[f"gan_id_{kind}"]["substitute"]["kind"] for kind in ("cgan", "infogan")]
    assert kinds == ["cgan", "infogan"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_have_the_papers_sizes(name: str) -> None:
    suite = load_suite(name)
    assert isinstance(suite.data, FolderData)
    assert (suite.data.size, suite.victim.recipe.batch) == FOLDERS[name]
    assert suite.data.test_images == 2
    # the other protocol is offered as a line that can be taken in place of this one
    spare = re.search(r"^# (test_fraction = 0\.2) #", text_of(name), re.MULTILINE)
    assert spare is not None
    data = {key: value for key, value in raw_of(name)["data"].items() if key != "test_images"}
    other = parse_suite({**raw_of(name), "data": {**data, **tomllib.loads(spare[1])}}, where="suite x.toml")
    assert isinstance(other.data, FolderData)
    assert (other.data.test_images, other.data.test_fraction) == (0, 0.2)


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_data_are_told_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = load_suite(name)
    people = suite.data.private + suite.data.public + suite.data.defender
    with pytest.raises(DataError) as caught:
        build_plan(suite)
    assert str(caught.value) == (
        f"images in {tmp_path / 'data' / name}: there is no such folder. Put one sub-folder of images for "
        f"each of {people} people or more there, or change `path` in [data]."
    )
    assert f"`data/{name}`" in text_of(name)
    assert f"{people} people" in text_of(name)


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `data/<suite>` of 14 people, for every suite of a folder."""
    noise = np.random.default_rng(0)
    for name in FOLDERS:
        for person in range(14):
            folder = tmp_path / "data" / name / f"{person:02}"
            folder.mkdir(parents=True)
            for image in range(4):
                pixels = noise.integers(0, 255, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{image}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def on_few_people(raw: dict[str, Any], folder: Path) -> Suite:
    """The suite of a folder for a few people and with small nets, its variants among its defenses."""
    tables = {
        "data": {**raw["data"], "private": 10, "public": 2, "defender": 2},
        "targets": {**raw["targets"], "protected": 2, "attacked": 2},
        **{name: {**raw[name], "net": "small_vgg"} for name in NETS},
        "defenses": {**raw["defenses"], **raw["more"]["defenses"]},
        "more": {"attacks": raw["more"]["attacks"]},
    }
    return parse_suite({**raw, **tables}, where="suite few.toml", folder=folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_plan_with_every_variant(name: str, people: Path) -> None:
    suite = on_few_people(raw_of(name), people)
    plan = build_plan(suite)
    assert len(plan.cells) == (4 * 2 + 3) * len([*DEFENSES, *VARIANTS])
    assert [cell.blocked for cell in plan.cells if cell.blocked] == []
    train, test = suite.data.load("private")
    assert test is not None
    assert (len(train), len(test), train.shape) == (20, 20, (3, *[suite.data.size] * 2))


def test_bench_64_plans_without_data() -> None:
    plan = build_plan(load_suite("bench-64"))
    stages = [task.stage for task in plan.tasks.values()]
    people = plan.suite.targets.protected
    assert len(plan.cells) == (4 * 2 + 3) * len(DEFENSES)
    assert [cell.blocked for cell in plan.cells if cell.blocked] == []
    # GAN-D trains for two generators, DMI's and Mirror's: attacks without one meet the model made for DMI's
    assert stages.count("train") == 2 + 3 * people
    # only ad_mi has two white-box views: 4 white-box attacks meet 6 models' views, 3 others 5
    assert stages.count("measure") == 4 * (len(DEFENSES) + 1) + 3 * len(DEFENSES)


TINY: dict[str, dict[str, Any]] = {
    "data": {"private": 6, "private_images": 3, "test_images": 2, "public": 6, "public_images": 4,
             "defender": 4, "defender_images": 4, "size": 32},
    "targets": {"protected": 2, "bystanders": 1, "attacked": 3, "images": 2},
    "victim": {"net": "small_vgg", "width": 8},
    "judge": {"net": "small_resnet", "width": 8},
    "audit": {"net": "small_convnext", "width": 8},
    "embedder": {"width": 8},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "steps": 2, "epochs": 1, "max_iter": 3, "adapt_steps": 1, "critic_lead": 1, "presamples": 16, "keep": 8,
    "candidates": 2, "z_steps": 2, "finetune_steps": 2, "num_fakes": 4, "fisher_samples": 8, "width": 8,
    "critic_width": 8, "batch": 8, "p_samples": 32, "units": 8, "public_epochs": 1, "delta": 1e-3,
    "latent_dim": 8, "w_dim": 8,
}  # fmt: skip
OF_PLUGIN: dict[str, tuple[str, ...]] = {
    "mi_face": ("max_iter",),
    "dmi": ("adapt_steps", "critic_lead", "critic_width", "batch"),
    "mirror": ("presamples", "keep", "candidates"),
    "ami": ("width", "epochs", "batch"),
    "untrained_prior": ("latent_dim", "width"),
    "dp_sgd": ("epochs", "batch", "public_epochs", "delta"),
    "ad_mi": ("width", "epochs", "batch"),
    "gan_d": ("z_steps", "finetune_steps", "num_fakes", "fisher_samples"),
    "gan_id": ("z_steps", "finetune_steps", "num_fakes", "fisher_samples"),
}
OF_TABLE: dict[str, tuple[str, ...]] = {
    "prior": ("latent_dim", "width", "critic_width", "steps", "batch"),
    "substitute": ("latent_dim", "width", "critic_width", "steps", "batch"),
    "search": ("steps",),
    "dae": ("units", "epochs"),
    "recipe": ("epochs", "batch"),
}


def small(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: SMALL[name] for name in names}


def scaled_down(raw: dict[str, Any]) -> Suite:
    """The same suite with every size lowered and nothing else changed."""
    tables = {name: {**raw[name], **values} for name, values in TINY.items()}
    for net in NETS:
        tables[net]["recipe"] = {**raw[net].get("recipe", {}), **small(OF_TABLE["recipe"])}
    for kind in ("attacks", "defenses"):
        tables[kind] = {label: lowered_entry(label, values) for label, values in raw[kind].items()}
    tables["attacks"]["untrained_prior"]["search"] = small(OF_TABLE["search"])
    return parse_suite({**raw, **tables}, where="suite bench-64.toml")


def lowered_entry(label: str, values: dict[str, Any]) -> dict[str, Any]:
    entry = {**values, **small(OF_PLUGIN.get(label, ()))}
    for name in set(OF_TABLE) & set(entry):
        entry[name] = {**entry[name], **small(OF_TABLE[name])}
    if label == "mirror":
        entry["prior"] = {**entry["prior"], **small(("w_dim", "p_samples"))}
    return entry


@pytest.mark.slow
def test_bench_64_scaled_down_runs_to_its_records(tmp_path: Path) -> None:
    suite = scaled_down(raw_of("bench-64"))
    records = run(build_plan(suite), Store(tmp_path / "store"), results=tmp_path)
    assert {(record.status, record.error) for record in records} == {("ok", None)}
    assert len(records) == (4 * 2 + 3) * len(DEFENSES)
    for record in records:
        assert set(record.estimates) == {metric.name for metric in suite.metrics}
        aa = record.estimates["aa"]
        assert aa is not None
        assert 0 <= aa["value"] <= 1
