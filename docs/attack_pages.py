"""Pages of the attacks: what each is, its options, and what it is worth on the undefended victim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from page_parts import card_facts, deviations, head, number, options, preset_part

from mibench.attack import Attack
from mibench.catalog import prior_of
from mibench.record import Record, read_records
from mibench.registry import list_attacks

RESULTS = Path("results/attacks")
ADAPTIVE = {"adaptive": "see [adaptive attackers](../adaptive.md)."}


def attack_pages(root: Path) -> dict[Path, str]:
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
    yield from head(plugin, "attacks", _facts(plugin))
    yield from options(plugin, linked=ADAPTIVE)
    yield from preset_part(plugin, "attacks")
    yield from deviations(plugin)
    yield from _measured(plugin, record, seconds, root)
    yield ""


def _facts(plugin: type[Attack[Any]]) -> list[tuple[str, str]]:
    return [
        *card_facts(plugin),
        ("access", plugin.access.level),
        ("prior", prior_of(plugin)),
        ("also called", ", ".join(plugin.aliases)),
        ("role", "negative control: it claims nothing" if plugin.control else ""),
    ]


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
            yield f"| {info['title']} | {number(estimate, percent=info['percent'])} |"
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
        yield f"| {point['queries']:,} | {number(point['aa'], percent=True)} |"


def _index(plugins: dict[str, type[Attack[Any]]], found: dict[str, Record]) -> Iterator[str]:
    yield "# Attacks\n"
    yield "<!-- written by docs/plugin_pages.py -->"
    yield "AA is over all attacked labels of the undefended victim in suite `attacks`"
    yield "([how to read it](../../results/attacks/README.md)); 95 % intervals.\n"
    yield "| attack | access | prior | year | AA (%) |\n| --- | --- | --- | --- | --- |"
    for name, plugin in sorted(plugins.items(), key=lambda item: (item[1].control, item[0])):
        record = found.get(name)
        aa = record.estimates.get("aa_all") if record is not None and record.status == "ok" else None
        shown = number(aa, percent=True) if aa else ""
        access = plugin.access.level + (", control" if plugin.control else "")
        year = plugin.card.year or ""
        yield f"| [{name}]({name}.md) | {access} | {prior_of(plugin)} | {year} | {shown} |"
    yield ""


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
