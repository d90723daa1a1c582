"""A submission from `mibench run` to the verdict on its plugin, run again in processes of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mibench.key import canonical

SUITE = """
name = "mini"
metrics = ["mc_all", "aa", "fid"]
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
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[defenses.none]
[attacks.mean_face]
"""
SHIELD = '''"""A defense that trains for one pass only."""

import dataclasses
from dataclasses import dataclass

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.training import fit

print("\\x1b[2J printed by a plugin")


@dataclass(frozen=True, kw_only=True)
class Shield(Defense):
    """Training stopped early."""

    name = "shield"
    acts = "training"
    card = Card(title="Shield: one pass", year=2026)
    epochs: int = 1

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """One pass over the private images."""
        ctx.note("passes", self.epochs)
        return fit(net, view.private_train, ctx, recipe=dataclasses.replace(view.recipe, epochs=self.epochs))
'''


def mibench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mibench", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of `shield` and their bundle `shield.zip`."""
    folder = tmp_path_factory.mktemp("submit")
    (folder / "mini.toml").write_text(SUITE, encoding="utf-8")
    (folder / "shield.py").write_text(SHIELD, encoding="utf-8")
    ran = mibench(folder, "run", "mini.toml", "--defense", "none", "--defense", "shield.py", "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    made = mibench(folder, "submit", "pack", "results/mini", "--defense", "shield", "--out", "shield.zip")
    assert made.returncode == 0, made.stderr
    return folder


def test_a_plugin_gives_its_records_again(packed: Path, tmp_path: Path) -> None:
    bundle = str(packed / "shield.zip")
    done = mibench(
        tmp_path, "submit", "verify", bundle, "--rerun", "--out", "again", "--jobs", "2", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("re-run: its plugin gave these records here")
    assert "with your rights on this machine" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "what a plugin prints goes into a file"
    assert "printed by a plugin" in (tmp_path / "again" / "run.log").read_text(encoding="utf-8")
    before, after = (
        [json.loads(line) for line in (folder / "mini" / "records.jsonl").read_text().splitlines()]
        for folder in (packed / "results", tmp_path / "again")
    )
    assert before == after
    second = mibench(tmp_path, "submit", "verify", bundle, "--rerun", "--out", "again")
    assert second.returncode == 2
    assert "is not empty" in second.stderr


def test_a_plugin_that_does_not_what_its_records_say_is_found_out(packed: Path, tmp_path: Path) -> None:
    """Records, images and hashes are true; the source is that of another defense of this name."""
    with zipfile.ZipFile(packed / "shield.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["plugin.py"] = members["plugin.py"].replace(b"epochs: int = 1", b"epochs: int = 2")
    manifest = json.loads(members["bundle.json"])
    digest = hashlib.sha256(members["plugin.py"]).hexdigest()
    manifest["files"]["plugin.py"] = {"sha256": digest, "bytes": len(members["plugin.py"])}
    members["bundle.json"] = f"{canonical(manifest)}\n".encode()
    with zipfile.ZipFile(tmp_path / "their.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    plain = mibench(tmp_path, "submit", "verify", "their.zip", "--jobs", "1")
    assert plain.returncode == 0, "its numbers do follow from its images"
    assert plain.stdout.splitlines()[-1].startswith("recomputed:")
    done = mibench(tmp_path, "submit", "verify", "their.zip", "--jobs", "1", "--rerun")
    assert done.returncode == 1, done.stdout
    assert done.stdout.splitlines()[-1].startswith("refused:")
    assert not list(tmp_path.glob("**/shield.py")), "nothing of it is left behind"
