"""Condense what pytest-benchmark wrote, and compare it with an earlier run.

    python benchmarks/compare.py OLD.json NEW.json             a line a benchmark: old, new, ratio, exponent
    python benchmarks/compare.py results/benchmarks NEW.json   the same, with all that is committed
    python benchmarks/compare.py --condense RAW.json FILE.json the committed form of a run
    python benchmarks/compare.py --condense RAW.json FOLDER    one file for each module of benchmarks

Seconds are those of CPU time at the largest size where a benchmark leaves them, else the median of the wall
clock, which what else the machine does moves. Ratios of two machines say nothing of the code; those of
exponents do. It judges nothing: bounds stand in the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CPU = ("arch", "brand_raw", "count")
STATS = ("max", "mean", "median", "min", "rounds", "stddev")
FILES = {"test_input_pipeline": "data"}
"""Where a module's numbers go, if not into a file of its own name."""
Json = dict[str, Any]
BAD_INPUT = 2


class UnreadableError(Exception):
    """A file that holds no benchmarks."""


def condensed(raw: Json) -> Json:
    """What is kept of a run: of each benchmark its name, its `extra_info` and the statistics of its times.

    Where a benchmark leaves seconds of CPU time, those of the wall clock are left out: they tell how busy the
    machine was. Of the machine its kind is kept; its name, the commit and each round's time are left out.
    """
    kept = [
        {
            "extra_info": dict(sorted(one["extra_info"].items())),
            "name": one["name"],
            "stats": {name: one["stats"][name] for name in _kept(one)},
        }
        for one in raw["benchmarks"]
    ]
    machine = raw.get("machine_info", {})
    told: Json = {name: machine[name] for name in ("machine", "python_version", "system") if name in machine}
    told["cpu"] = {name: machine["cpu"][name] for name in CPU if name in machine.get("cpu", {})}
    head: Json = {name: raw[name] for name in ("datetime", "version") if name in raw}
    return {"benchmarks": kept, "machine": told, **head}


def _kept(one: Json) -> tuple[str, ...]:
    return ("rounds",) if one["extra_info"].get("cpu_s") else STATS


def by_module(raw: Json) -> dict[str, Json]:
    """The condensed benchmarks by the name of the file that they go to."""
    found: dict[str, list[Json]] = defaultdict(list)
    for one in raw["benchmarks"]:
        module = Path(one["fullname"].partition("::")[0]).stem
        found[FILES.get(module, module.removeprefix("test_"))].append(one)
    return {name: condensed({**raw, "benchmarks": some}) for name, some in found.items()}


def seconds(one: Json) -> float:
    """CPU seconds at the largest size, or where none are known the median of the wall clock."""
    by_size: dict[str, float] = one["extra_info"].get("cpu_s", {})
    return by_size[max(by_size, key=int)] if by_size else float(one["stats"]["median"])


def compared(old: Json, new: Json) -> list[str]:
    """A line for each benchmark of the new run, then one for each that is gone."""
    before = {one["name"]: one for one in old["benchmarks"]}
    now = {one["name"]: one for one in new["benchmarks"]}
    width = max(map(len, [*before, *now, "benchmark"]))
    lines = [f"{'benchmark':{width}}  {'old s':>10}  {'new s':>10}  {'ratio':>6}  exponent"]
    for name, one in now.items():
        past, took = before.get(name), seconds(one)
        if past is None:
            lines.append(f"{name:{width}}  {'new':>10}  {took:10.4g}  {'':6}  {_exponent(one)}".rstrip())
            continue
        ratio = took / seconds(past)
        grown = " <- ".join(filter(None, (_exponent(one), _exponent(past))))
        line = f"{name:{width}}  {seconds(past):10.4g}  {took:10.4g}  {ratio:6.2f}  {grown}"
        lines.append(line.rstrip())
    return [*lines, *(f"{name:{width}}  gone" for name in before if name not in now)]


def _exponent(one: Json) -> str:
    found = one["extra_info"].get("exponent")
    return "" if found is None else f"{found:.2f}"


def read(file: Path) -> Json:
    """The content of a file of benchmarks, condensed or not, or the benchmarks of all files of a folder.

    Raises:
        UnreadableError: it cannot be read, or holds none.
    """
    if file.is_dir():
        parts = [read(one)["benchmarks"] for one in sorted(file.glob("*.json"))]
        return {"benchmarks": [one for part in parts for one in part]}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if all({"name", "extra_info", "stats"} <= set(one) for one in content["benchmarks"]):
            return dict(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"benchmarks {file}: cannot be read ({error}). Run `make bench`.") from error
    raise UnreadableError(f"benchmarks {file}: holds none. Run `make bench`.")


def write(file: Path, content: Json) -> None:
    """Write condensed benchmarks as they are committed."""
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def condense(raw: Path, target: Path) -> list[Path]:
    """Write the condensed form of a run to a file, or if `target` is a folder to one file a module there."""
    content = read(raw)
    if not target.is_dir():
        write(target, condensed(content))
        return [target]
    files = []
    for name, part in by_module(content).items():
        files.append(target / f"{name}.json")
        write(files[-1], part)
    return files


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where a file cannot be read."""
    parser = argparse.ArgumentParser(description="Compare two runs of the benchmarks, or condense one.")
    parser.add_argument("--condense", action="store_true", help="write the committed form of the first file")
    parser.add_argument("old", type=Path, help="earlier run; with --condense what pytest-benchmark wrote")
    parser.add_argument("new", type=Path, help="later run; with --condense the file or folder to write")
    asked = parser.parse_args(argv)
    try:
        found = (
            condense(asked.old, asked.new) if asked.condense else compared(read(asked.old), read(asked.new))
        )
    except UnreadableError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
