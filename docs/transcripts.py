"""Run the transcripts of the pages, compare their output with what the pages show, or write it anew.

In a block ```console a line that begins with `$ ` is a command, and what follows is its standard output. The
blocks of a page run one after another in one new folder. What a command needs stands on the page, in comments
that a reader does not see: `<!-- file: NAME -->` before a block writes that block to a file, and
`<!-- needs: results/quick -->` lends a folder of the checkout. `<!-- by machine -->` before a transcript
compares words and not numbers, since another machine rounds otherwise. A line `…` stands for any lines, and
`…` inside of a line for any text. Durations, sizes in memory and dates are never compared.
Usage: python docs/transcripts.py [PAGE ...], which writes what has changed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
WIDTH = 100  # columns that commands print
LIMIT_S = 600.0  # of one command, on a machine that does much else

_BLOCK = re.compile(
    r"(?P<notes>(?:<!-- (?:file|by machine|needs)[^>]*-->\n+)*)```(?P<kind>\w*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_NOTE = re.compile(r"<!-- (file|needs): (\S+) -->")
_MADE_BY_CODE = "<!-- walk -->"  # the page writes and tests its transcript itself
_VARIES = re.compile(
    r"\d[\d,.]*(?= ?(?:s|ms|min|h|MiB|GiB|KiB|MB|kB)\b)"  # durations and sizes
    r"|(?<=Slowest: )\w+"  # of the checks of a plugin
    r"|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?"  # dates
)
_SLOW = re.compile(r"^That is more than .*\n", re.MULTILINE)  # advice that `check` gives on a busy machine
_NUMBER = re.compile(r"[+\-\N{MINUS SIGN}]?\d[\d.,]*")


class TranscriptError(Exception):
    """A transcript does not run, or prints something else than its page shows."""


@dataclass(frozen=True)
class Step:
    """One command of a transcript.

    Args:
        command: for bash.
        shown: what the page says that it prints.
        by_machine: whether numbers are left out of the comparison.
    """

    command: str
    shown: str
    by_machine: bool


def pages() -> list[Path]:
    """The pages with transcripts that are meant to be run."""
    texts = {
        page: page.read_text(encoding="utf-8")
        for page in sorted(DOCS.rglob("*.md"))
        if "_build" not in page.parts
    }
    return [page for page, text in texts.items() if "```console\n$ " in text and _MADE_BY_CODE not in text]


def check(page: Path, folder: Path) -> None:
    """Run the transcripts of a page in an empty folder.

    Raises:
        TranscriptError: a command fails or prints something else; with both texts.
    """
    for step, printed in _run(page.read_text(encoding="utf-8"), folder):
        if not agree(step.shown, printed, by_machine=step.by_machine):
            raise TranscriptError(
                f"{page.name}: `{step.command}` does not print what the page shows. If it should not, run "
                f"`make transcripts`.\n--- shown\n{step.shown}--- printed\n{printed}"
            )


def rewritten(text: str, folder: Path) -> str:
    """The text of a page with outputs that do not agree replaced by what was printed in an empty folder."""
    ran = iter(list(_run(text, folder)))

    def anew(block: re.Match[str]) -> str:
        if block["kind"] != "console":
            return block[0]
        told = ""
        for step, printed in (next(ran) for _ in _steps(block)):
            shown = step.shown if agree(step.shown, printed, by_machine=step.by_machine) else printed
            told += f"$ {step.command}\n{shown}"
        return f"{block['notes']}```console\n{told}```"

    return _BLOCK.sub(anew, text)


def agree(shown: str, printed: str, *, by_machine: bool = False) -> bool:
    r"""Whether a shown output stands for a printed one; see the module's text for what is not compared.

    >>> agree("ready in 3.1 s\n", "ready in 12 s\n"), agree("AA 3.1 %\n", "AA 12 %\n")
    (True, False)
    >>> agree("first\n…\nlast\n", "first\nmore\nand more\nlast\n")
    True
    """
    pattern = ""
    for line in _plain(shown, by_machine=by_machine).splitlines():
        words = ".*".join(map(re.escape, line.split("…")))
        pattern += "(?:.*\n)*?" if line.strip() == "…" else f"{words}\n"
    return re.fullmatch(pattern, _plain(printed, by_machine=by_machine)) is not None


def _plain(text: str, *, by_machine: bool) -> str:
    """A text without what varies; spaces and rules shrink, since columns are as wide as their numbers."""
    text = _VARIES.sub("#", _SLOW.sub("", text))
    if by_machine:
        text = _NUMBER.sub("#", text)
    lines = (re.sub(r"[ ─━]+", " ", line).strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines)


def _run(text: str, folder: Path) -> Iterator[tuple[Step, str]]:
    """Each step of a page with what it printed, files written and folders lent as the page goes on."""
    for name in (value for kind, value in _NOTE.findall(text) if kind == "needs"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(DOCS.parent / name, target_is_directory=True)
    for block in _BLOCK.finditer(text):
        for kind, name in _NOTE.findall(block["notes"]):
            if kind == "file":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(block["body"], encoding="utf-8")
        if block["kind"] == "console":
            for step in _steps(block):
                yield step, _printed(step.command, folder)


def _steps(block: re.Match[str]) -> Iterator[Step]:
    """The commands of a transcript, one after another."""
    for part in re.split(r"^\$ ", block["body"], flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield Step(command, shown, "<!-- by machine -->" in block["notes"])


def _printed(command: str, folder: Path) -> str:
    """What a command prints on standard output; the folder's own path is a dot.

    Standard error is not told: it holds progress, which differs with the speed of the machine.

    Raises:
        TranscriptError: it ends with another code than 0, or not in time.
    """
    here = str(Path(sys.executable).parent)
    own = {
        "PATH": f"{here}:{os.environ['PATH']}",
        "COLUMNS": str(WIDTH),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }
    env = {**os.environ, **own, "CUDA_VISIBLE_DEVICES": "", "TERM": "dumb"}
    try:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=env,
            text=True,
            timeout=LIMIT_S,
            check=False,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise TranscriptError(f"`{command}` took more than {LIMIT_S:.0f} s.") from error
    if done.returncode != 0:
        raise TranscriptError(f"`{command}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    lines = (line.rstrip() for line in done.stdout.replace(str(folder.resolve()), ".").splitlines())
    return "".join(f"{line}\n" for line in lines)


def main(names: list[str]) -> int:
    """Write the outputs of some pages, or of all, anew."""
    for page in [Path(name).resolve() for name in names] or pages():
        with tempfile.TemporaryDirectory() as folder:
            text = page.read_text(encoding="utf-8")
            page.write_text(rewritten(text, Path(folder)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
