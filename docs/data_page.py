"""Write the parts of docs/data.md that the code knows best: a walk through the commands, and the known sets.

The walk is what the commands print on a folder of drawn faces with the usual mistakes in it. A part stands
between `<!-- walk -->` and `<!-- /walk -->`, or `sets` likewise. Usage: python docs/data_page.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mibench.cli import main
from mibench.data.layouts import LAYOUTS
from mibench.data.layouts.layout import Facts
from mibench.data.synthfaces import SynthFaces
from mibench.report.escape import markdown

PAGE = Path(__file__).resolve().parent / "data.md"
MARKED = re.compile(r"(<!-- (walk|sets) -->\n).*?(<!-- /\2 -->)", re.DOTALL)
COMMANDS = (
    "mibench data prepare image_folder --from photos --name mine --size 32 --min-images 2 "
    '--licence "Our group."',
    "mibench data verify data/mine-32",
    "mibench data doctor",
    "mibench data split data/mine-32 --private 8 --test-images 1",
    "mibench data verify data/mine-32/splits/default.json",
)
_LINE = 110  # characters of a line on the page
_VARIES = re.compile(r"\d[\d,]*(\.\d+)?(?= s\b|/s\b| GiB)|(?<=facenet-pytorch: )[\w.]+|(?<=free at )[^;]+")


def page(text: str) -> str:
    """The page with both parts made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{_PARTS[found[2]]()}{found[3]}", text)


def walk() -> str:
    """The commands and what they print, in a folder of their own; what differs by machine is an ellipsis."""
    lines = []
    with tempfile.TemporaryDirectory() as name, _inside(Path(name)):
        photos(Path("photos"))
        for command in COMMANDS:
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                code = main(shlex.split(command)[1:])
            if code != 0:
                raise RuntimeError(f"`{command}` ended with {code}: {out.getvalue()}")
            lines += [f"$ {command}", *_VARIES.sub("…", out.getvalue()).splitlines(), ""]
    wrapped = [part for line in lines for part in _wrapped(line)]
    return "\n".join(["```console", *wrapped[:-1], "```", ""])


def photos(folder: Path) -> None:
    """Drawn faces of 24 people, as users have photos: with copies, wrong names and broken files."""
    faces = SynthFaces(size=32)
    for person in range(24):
        own = folder / f"person_{person + 1:02d}"
        own.mkdir(parents=True)
        count = 6 if person else 1
        drawn = faces.render(torch.full((count,), person), torch.arange(count))
        for number, image in enumerate(drawn.permute(0, 2, 3, 1).numpy(), 1):
            Image.fromarray((image * 255).round().astype(np.uint8)).save(own / f"{number}.png")
    (folder / "person_02" / "cut.png").write_bytes((folder / "person_02" / "1.png").read_bytes()[:900])
    (folder / "person_03" / "copy.png").write_bytes((folder / "person_03" / "1.png").read_bytes())
    (folder / "person_04" / "none.png").touch()
    Image.new("RGB", (32, 32), (30, 30, 30)).save(folder / "person_05" / "black.png")
    with Image.open(folder / "person_06" / "1.png") as image:
        image.save(folder / "person_07" / "wrong.png", compress_level=1)  # the same pixels in other bytes


def sets() -> str:
    """A table of the known sets, from their facts."""
    lines = ["| word | set | prepared as | may be shown | terms |", "|---|---|---|---|---|"]
    for name, layout in sorted(LAYOUTS.items()):
        facts = layout.facts
        title = f"[{markdown(facts.title)}]({facts.home})" if facts.home else markdown(facts.title)
        shown = "yes" if facts.may_publish else "no"
        lines.append(f"| `{name}` | {title} | {_prepared(facts)} | {shown} | {markdown(facts.terms)} |")
    return "\n".join(lines) + "\n"


def _prepared(facts: Facts) -> str:
    """Size, color and crop in a few words, and what the set lacks or has more."""
    color = "RGB" if facts.channels == 3 else "gray"
    words = [f"{facts.size}x{facts.size} {color}", f"middle {facts.crop}" if facts.crop else "largest square"]
    words += [] if facts.has_identities else ["public alone: no people"]
    words += ["has landmarks"] if facts.has_landmarks else []
    return ", ".join(words)


_PARTS = {"walk": walk, "sets": sets}


def _wrapped(line: str) -> Iterator[str]:
    """A line in pieces that fit on the page, cut between words."""
    while len(line) > _LINE:
        cut = line.rfind(" ", 0, _LINE)
        yield line[:cut]
        line = f"      {line[cut + 1 :]}"
    yield line.rstrip()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder; where there is no terminal the commands print 100 columns."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
