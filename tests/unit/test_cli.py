"""The command line: exit codes, messages, files, and what is imported when."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import mibench
from mibench import benchmark, zoo
from mibench.cli import main
from mibench.data.synthfaces import SynthFaces
from mibench.record import read_records
from mibench.registry import forget_files, list_defenses

TOYS = Path(__file__).parents[1] / "e2e" / "plugins"
HEAD = """
# A suite of seconds.
name = "mini"
metrics = ["mc_all", "aa"]
{data}
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = {{ epochs = 2, batch = 8 }}
[judge]
net = "softmax_regression"
recipe = {{ epochs = 2, batch = 8 }}
[defenses.none]
[attacks.mean_face]
"""
SYNTHETIC = """
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
"""
FOLDER = """
[data]
kind = "folder"
path = "faces"
size = 16
private = 3
public = 2
defender = 2
"""
STYLE = """
[attacks.mirror_bb]
prior = { latent_dim = 8, w_dim = 8, width = 4, critic_width = 4, steps = 2, batch = 4, p_samples = 16 }
population = 4
generations = 1
presamples = 8
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with a suite; plugins from files are forgotten afterwards."""
    (tmp_path / "mini.toml").write_text(HEAD.format(data=SYNTHETIC), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path
    forget_files()


def run(*words: str) -> int:
    """`mibench run` in this process."""
    return main(["run", *words, "--jobs", "1", "--device", "cpu"])


def test_a_run_leaves_records_images_tables_figures_and_pages(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mini.toml") == 0
    out, err = capsys.readouterr()
    folder = here / "results" / "mini"
    (record,) = read_records(folder / "records.jsonl")
    assert record.status == "ok"
    for name in ("costs.jsonl", "tables/comparison.csv", "figures/aa.png", "index.html"):
        assert (folder / name).stat().st_size > 0, name
    for name in ("real.png", "got.png", "nearest.png", "reconstructions.png", "index.html"):
        assert (folder / "cells" / record.cell / name).stat().st_size > 0, name
    assert "mean_face" in out
    assert "results/mini/index.html" in out.splitlines()
    assert "train undefended" in err
    assert "1 of 1 cells" in err

    text = (folder / "records.jsonl").read_bytes()
    assert run("mini.toml") == 0
    assert "train undefended" not in capsys.readouterr().err
    assert (folder / "records.jsonl").read_bytes() == text


def test_real_and_nearest_images_are_private_training_images(here: Path) -> None:
    assert run("mini.toml") == 0
    folder = here / "results" / "mini"
    (record,) = read_records(folder / "records.jsonl")
    cell = folder / "cells" / record.cell
    layout = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
    assert sorted(layout["labels"]) == record.targets["attacked"]
    faces = SynthFaces(size=16, channels=1).render(
        torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
    )
    known = {tuple((face * 255).round().int().flatten().tolist()) for face in faces}
    with Image.open(cell / "nearest.png") as opened:
        strip = torch.frombuffer(bytearray(opened.tobytes()), dtype=torch.uint8).view(
            opened.height, opened.width
        )
    tiles = [tile for row in strip.split(16) for tile in row.split(16, dim=1)]
    assert len(tiles) == 2 * 2
    assert all(tuple(tile.int().flatten().tolist()) in known for tile in tiles)


def test_a_failed_cell_exits_3_and_leaves_its_trace(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mini.toml", "--attack", str(TOYS / "toy_failing.py")) == 3
    err = capsys.readouterr().err
    assert "ZeroDivisionError: toy attack divides by zero" in err
    assert "1 of 2 cells failed; see results/mini/failures.txt" in err
    assert "toy_failing.py" in (here / "results" / "mini" / "failures.txt").read_text(encoding="utf-8")
    assert run("mini.toml") == 0
    assert not (here / "results" / "mini" / "failures.txt").exists()


def test_an_image_folder_runs_end_to_end_and_its_faces_stay_inside(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_faces(here / "faces")
    (here / "mini.toml").write_text(HEAD.format(data=FOLDER), encoding="utf-8")
    assert run("mini.toml") == 0
    (record,) = read_records(here / "results" / "mini" / "records.jsonl")
    assert record.data["kind"] == "folder"
    assert record.data["num_classes"] == 3
    pictures = [file.relative_to(here / "results" / "mini") for file in (here / "results").rglob("got.png")]
    assert [file.parts[0] for file in pictures] == ["withheld"]
    assert (here / "results" / "mini" / "withheld" / ".gitignore").read_text(encoding="utf-8") == "*\n"
    assert str(here) not in (here / "results" / "mini" / "records.jsonl").read_text(encoding="utf-8")

    (here / "faces" / "person-2" / "1.png").write_bytes(b"no image")
    assert run("mini.toml") == 3
    assert "cannot be read" in capsys.readouterr().err


def write_faces(folder: Path) -> None:
    """Seven people with three pictures each."""
    for person in range(7):
        (folder / f"person-{person}").mkdir(parents=True)
        faces = SynthFaces(size=20).render(torch.full((3,), person), torch.arange(3))
        for number, face in enumerate((faces * 255).byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(face).save(folder / f"person-{person}" / f"{number}.png")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["run", "nosuch"], "unknown suite 'nosuch'"),
        (["run", "mini.toml", "--defense", "nnone"], "unknown defense 'nnone'. Did you mean 'none'?"),
        (["run", "mini.toml", "--attack", "mean_fase"], "unknown attack 'mean_fase'."),
        (["run", "mini.toml", "--plugin", "nosuch.py"], "plugin nosuch.py: no such file."),
        (
            ["run", "folder.toml"],
            "there is no such folder. Put one sub-folder of images for each of 7 people",
        ),
        (["run", "wrong.toml"], "suite wrong.toml: no field 'sedes'. Did you mean 'seeds'?"),
        (["plan", "latin.toml"], "suite latin.toml: cannot be read"),
        (["table", "nosuch"], "results nosuch: holds no records.jsonl."),
        (["plot", "broken"], "records broken/records.jsonl, line 1: it is no JSON"),
        (["report", "empty"], "records: there are none"),
        (["show", "dmii"], "unknown attack 'dmii'. Did you mean 'dmi'?"),
        (["show", "xyzzy"], "unknown plugin 'xyzzy'."),
        (["check", "nosuch.py"], "plugin nosuch.py: no such file."),
        (["zoo", "build", "folder.toml"], "Only priors of procedural faces belong into the zoo."),
    ],
)
def test_bad_input_is_one_sentence_on_stderr_and_exits_2(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], wanted: str
) -> None:
    (here / "folder.toml").write_text(HEAD.format(data=FOLDER), encoding="utf-8")
    (here / "wrong.toml").write_text("sedes = [1]\n" + HEAD.format(data=SYNTHETIC), encoding="utf-8")
    (here / "latin.toml").write_bytes(b"name = '\xe9'")
    for name, text in (("broken", "{\n"), ("empty", "")):
        (here / name).mkdir()
        (here / name / "records.jsonl").write_text(text, encoding="utf-8")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert wanted in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_missing_gpu_exits_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", "mini.toml", "--device", "cuda"]) == 2
    assert "device 'cuda': there is no CUDA device" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_exits_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "results").write_text("a file", encoding="utf-8")
    assert run("mini.toml") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run"], ["run", "mini.toml", "--bogus"], ["list", "nets"], ["nosuch"]])
def test_wrong_usage_exits_2(words: list[str]) -> None:
    assert main(words) == 2


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run", stop)
    assert run("mini.toml") == 130
    assert "goes on from here" in capsys.readouterr().err


def test_a_plan_says_what_is_there_what_will_run_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "mini.toml"]) == 0
    before = capsys.readouterr().out
    assert "How long is not known" in before
    assert run("mini.toml") == 0
    capsys.readouterr()
    assert main(["plan", "mini.toml", "--seed", "1"]) == 0
    after = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in after.splitlines() if line}
    assert lines["data"] == ["3"]  # all there
    assert lines["train"][0] == "1"  # will run
    assert lines["train"][1].isdigit()
    assert "never ran here" not in after
    assert "1 cell: 1 attack, 1 defense, 1 seed; 0 blocked." in after


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("attacks", ["mean_face", "label, control", "white-box", "2021"]),
        ("defenses", ["netguard", "fine-tuning", "attack prior"]),
        ("metrics", ["aa", "lower", "Top-1 attack accuracy"]),
        ("suites", ["quick", "smoke", "Every attack and every defense"]),
    ],
)
def test_lists(capsys: pytest.CaptureFixture[str], what: str, words: list[str]) -> None:
    assert main(["list", what]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)


def test_each_defense_is_listed_on_one_line_with_its_knob(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "defenses"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["defense", "acts", "on", "knows", "knob", "year", "title"]
    plugins = list_defenses()
    assert [line.split()[0] for line in lines[: len(plugins)]] == list(plugins)
    for line, plugin in zip(lines, plugins.values()):
        shown = line[head.index("knob") :].split()
        assert shown[:2] == [plugin.strength or "-", str(plugin.card.year or "-")]


def test_a_card_is_found_by_alias_and_shows_fields_with_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "ked_mi"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dmi  attack, version 2")
    assert "Preset quick (mibench/suites/quick.toml):" in out
    assert "adapt_steps" in out
    assert "11000" in out
    assert "Differs from the paper:" in out


def test_a_defense_shows_its_knob_and_its_weakness(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "ad_mi"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("strength: step_size") for line in lines)
    assert "weak to: keyed_noise" in lines


def test_check_exits_1_only_where_a_check_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mean_face"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "warn"}
    assert last.startswith(f"{len(lines)} checks in ")
    text = (TOYS / "toy_scores.py").read_text(encoding="utf-8").replace("toy_scores", "toy_loud")
    (here / "toy_loud.py").write_text(
        text.replace('        ctx.note("toy', '        print("x")\n        ctx.note("toy'), encoding="utf-8"
    )
    assert main(["check", "toy_loud.py"]) == 1
    out = capsys.readouterr().out
    failed = [line for line in out.splitlines() if line.startswith("fail")]
    assert any("of toy_loud.py prints. Use ctx.report" in line for line in failed)


@pytest.mark.parametrize(
    ("form", "start"),
    [("csv", "data"), ("markdown", "**synthfaces"), ("latex", "%"), ("html", "<")],
)
def test_tables_in_other_forms(capsys: pytest.CaptureFixture[str], form: str, start: str) -> None:
    assert run("mini.toml") == 0
    capsys.readouterr()
    assert main(["table", "results/mini", "--format", form, "--metric", "aa"]) == 0
    out = capsys.readouterr().out
    assert out.lstrip().startswith(start)
    assert "mean" in out


def test_reports_need_the_records_alone_and_no_torch(here: Path) -> None:
    assert run("mini.toml") == 0
    script = (
        "import sys\n"
        "import mibench\n"
        "from mibench.cli import main\n"
        "codes = [main(['--help'])]\n"
        "codes += [main([word, 'results/mini']) for word in ('table', 'plot', 'report')]\n"
        "assert codes == [0, 0, 0, 0], codes\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=here
    )
    assert done.returncode == 0, done.stderr
    assert "results/mini/figures/aa.png" in done.stdout.splitlines()


def test_doctor_names_what_it_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for word in ("versions", "packages", "device", "threads", "disk", "store", "plugins", "zoo"):
        assert f"  {word}: " in out


def test_doctor_exits_1_for_a_broken_zoo(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mibench import doctor

    (here / "zoo").mkdir()
    (here / "zoo" / "manifest.json").write_text('{"abc": {"sha256": "0", "title": "x"}}', encoding="utf-8")
    monkeypatch.setattr(zoo, "ZOO", here / "zoo")
    monkeypatch.setattr(doctor, "ZOO", here / "zoo")
    assert main(["doctor"]) == 1
    assert "fail  zoo: zoo prior abc.safetensors" in capsys.readouterr().out


def test_the_zoo_is_built_listed_used_and_cleared_of_old_priors(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "ZOO", here / "zoo")
    suite = here / "mini.toml"
    suite.write_text(suite.read_text(encoding="utf-8") + STYLE, encoding="utf-8")
    build = ["zoo", "build", "mini.toml", "--jobs", "1", "--device", "cpu"]
    assert main(build) == 0
    (first,) = (here / "zoo").glob("*.safetensors")
    assert first.name in capsys.readouterr().out
    assert main(["zoo", "list"]) == 0
    assert capsys.readouterr().out.split()[0] == first.stem[:12]

    assert run("mini.toml", "--attack", "mirror_bb", "--store", "fresh") == 0
    assert "zoo  prior style" in capsys.readouterr().err
    assert run("mini.toml", "--attack", "mirror_bb", "--store", "other", "--no-zoo") == 0
    assert "s  prior style" in capsys.readouterr().err

    suite.write_text(suite.read_text(encoding="utf-8").replace("steps = 2", "steps = 3"), encoding="utf-8")
    assert main(build) == 0
    (second,) = (here / "zoo").glob("*.safetensors")
    assert second != first


def test_the_lock_is_compared_without_being_written(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mibench import lock

    monkeypatch.setattr(lock, "read_lock", lambda: {"attacks": {}, "defenses": {}, "metrics": {}})
    assert main(["lock", "--check"]) == 1
    assert "attack 'ami': is not in plugins.lock. Run `mibench lock`." in capsys.readouterr().out
    assert not list(here.glob("plugins.lock"))


def test_the_public_face_is_sorted_and_whole() -> None:
    assert mibench.__all__ == sorted(mibench.__all__)
    for name in mibench.__all__:
        assert getattr(mibench, name).__name__ == name
    assert set(mibench.__all__) <= set(dir(mibench))
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        mibench.nosuch  # noqa: B018 - the access is the test


def test_importing_mibench_imports_no_torch() -> None:
    code = "import sys, mibench as m; assert 'torch' not in sys.modules; assert m.Attack.__name__ == 'Attack'"
    subprocess.run([sys.executable, "-c", code], check=True)
