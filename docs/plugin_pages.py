"""Write one page for each attack from its file, its card and the committed records; nothing is typed by hand.

Usage: python docs/plugin_pages.py
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mibench.attack import Attack
from mibench.catalog import presets, prior_of
from mibench.fields import field_docs
from mibench.record import Record, read_records
from mibench.registry import list_attacks

RESULTS = Path("results/attacks")
ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Text of every page by its file: `docs/attacks/<name>.md` and the list of them."""
    file = root / RESULTS / "records.jsonl"
    records = read_records(file) if file.is_file() else []
    found = {one.attack["label"]: one for one in records if one.defense["label"] == "none"}
    costs = _costs(root)
    folder = root / "docs" / "attacks"
    plugins = list_attacks()
    texts = {
        folder / f"{name}.md": "\n".join(_page(plugin, found.get(name), costs.get(name), root))
        for name, plugin in plugins.items()
    }
    return {**texts, folder / "README.md": "\n".join(_index(plugins, found))}


def _page(
    plugin: type[Attack[Any]], record: Record | None, seconds: float | None, root: Path
) -> Iterator[str]:
    card = plugin.card
    first, *rest = _module_text(plugin).split("\n\n")
    yield f"# {plugin.name}"
    yield f"\n<!-- written by docs/plugin_pages.py from attacks/{plugin.name}.py -->"
    yield f"\n{first}"
    yield "\n| | |\n| --- | --- |"
    yield from (f"| {name} | {_cell(value)} |" for name, value in _facts(plugin) if value)
    yield "\n## Idea\n"
    yield "\n\n".join(rest)
    yield "\n## Options\n"
    yield _class_text(plugin)
    yield "\nThe defaults are the `paper` variant: an empty table in a suite runs them."
    yield "\n| field | paper (default) | meaning |\n| --- | --- | --- |"
    docs, defaults = field_docs(plugin), plugin().params()
    yield "| `adaptive` | `none` | see [adaptive attackers](../adaptive.md). |"
    for name, meaning in docs.items():
        if name == "adaptive":
            continue
        yield f"| `{name}` | `{_toml(defaults.get(name))}` | {_cell(meaning)} |"
    yield from _preset_part(plugin)
    if card.deviations:
        yield "\n## Differs from the paper\n"
        yield from (f"- {line[0].upper()}{line[1:].rstrip('.')}." for line in card.deviations)
    yield from _measured(plugin, record, seconds, root)
    yield ""


def _facts(plugin: type[Attack[Any]]) -> list[tuple[str, str]]:
    card = plugin.card
    return [
        ("title", card.title),
        ("paper", card.paper),
        ("authors' code", f"<{card.code}>" if card.code else ""),
        ("access", plugin.access.level),
        ("prior", prior_of(plugin)),
        ("also called", ", ".join(plugin.aliases)),
        ("role", "negative control: it claims nothing" if plugin.control else ""),
    ]


def _preset_part(plugin: type[Attack[Any]]) -> Iterator[str]:
    for place, settings in presets(plugin).items():
        suite, _, label = place.partition(": ")
        yield f"\n### In suite `{suite}`" + (f" as `{label}`" if label else "") + "\n"
        lines = [f"{name} = {_toml(value)}" for name, value in settings.items()]
        yield "\n".join(["```toml", f"[attacks.{label or plugin.name}]", *lines, "```"])


def _measured(
    plugin: type[Attack[Any]], record: Record | None, seconds: float | None, root: Path
) -> Iterator[str]:
    """What the committed run of suite `attacks` gave on the undefended victim."""
    if record is None or record.status != "ok":
        return
    data, targets = record.data, record.targets
    height, width = data["size"][-2:]
    yield "\n## On synthfaces\n"
    yield (
        f"Suite `attacks`, undefended {record.victim_net}, {data['num_classes']} people, {height}x{width} "
        f"pixels, {len(targets['attacked'])} attacked labels with {targets['images']} images each.\n"
    )
    yield "| measure | value |\n| --- | --- |"
    for name in ("aa_all", "aa", "aa5", "fid"):
        estimate = record.estimates.get(name)
        if estimate is not None:
            info = record.metric_info[name]
            yield f"| {info['title']} | {_number(estimate, percent=info['percent'])} |"
    queries = record.queries
    yield f"| queries for each image | {queries['forward_per_image']:,.0f} |"
    yield f"| of these with gradients | {queries['gradient_per_image']:,.0f} |"
    yield f"| queries while adapting the prior | {queries['prior_forward']:,} |"
    if seconds is not None:
        yield f"| seconds to adapt and invert, one core | {seconds:,.0f} |"
    yield from _curve(record)
    grid = RESULTS / "figures" / f"grid-{plugin.name.replace('_', '-')}.png"
    if (root / grid).is_file():
        yield f"\n![Reconstructions by {plugin.name}](../../{grid.as_posix()})"


def _curve(record: Record) -> Iterator[str]:
    if len(record.effort) < 2:
        return
    yield "\nAA of the protected labels against queries for each image, had it stopped there:\n"
    yield "| queries | AA (%) |\n| --- | --- |"
    for point in record.effort:
        yield f"| {point['queries']:,} | {_number(point['aa'], percent=True)} |"


def _index(plugins: dict[str, type[Attack[Any]]], found: dict[str, Record]) -> Iterator[str]:
    yield "# Attacks\n"
    yield "<!-- written by docs/plugin_pages.py -->"
    yield "AA is over all attacked labels of the undefended victim in suite `attacks`"
    yield "([how to read it](../../results/attacks/README.md)); 95 % intervals.\n"
    yield "| attack | access | prior | year | AA (%) |\n| --- | --- | --- | --- | --- |"
    for name, plugin in sorted(plugins.items(), key=lambda item: (item[1].control, item[0])):
        record = found.get(name)
        aa = record.estimates.get("aa_all") if record is not None and record.status == "ok" else None
        shown = _number(aa, percent=True) if aa else ""
        access = plugin.access.level + (", control" if plugin.control else "")
        year = plugin.card.year or ""
        yield f"| [{name}]({name}.md) | {access} | {prior_of(plugin)} | {year} | {shown} |"
    yield ""


def _number(estimate: dict[str, Any], *, percent: bool) -> str:
    scale = 100 if percent else 1
    value, low, high = (scale * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f}" if low == high else f"{value:.1f} [{low:.0f}-{high:.0f}]"


def _costs(root: Path) -> dict[str, float]:
    """Seconds of adapting to and inverting the undefended victim, by the plugin's name."""
    file = root / RESULTS / "costs.jsonl"
    seconds: dict[str, float] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        cost = json.loads(line)
        is_plain = cost["title"].endswith("train undefended")
        if cost["stage"] in {"adapt", "invert"} and is_plain and cost["title"].split()[1] == cost["plugin"]:
            seconds[cost["plugin"]] = seconds.get(cost["plugin"], 0.0) + cost["wall_s"]
    return seconds


def _module_text(plugin: type) -> str:
    return inspect.cleandoc(inspect.getmodule(plugin).__doc__ or "")


def _class_text(plugin: type) -> str:
    return inspect.cleandoc(plugin.__doc__ or "").split("\n\nArgs:")[0]


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    sys.exit(0)
