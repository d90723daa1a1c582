"""Pages of the defenses: what each is, its options, who it is weak to, what it is worth and what it costs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from defense_results import Measured, read_measured
from page_parts import card_facts, deviations, head, options, preset_part, toml

from mibench.adaptive import Adaptive, Weakness, automatic
from mibench.defense import Defense
from mibench.registry import list_defenses
from mibench.victim import ScoreVictim, WhiteBoxVictim

BENCHMARK = Path("results/benchmarks/defenses.json")
WHERE = {
    "nothing": "nothing",
    "training": "the training of the net",
    "fine-tuning": "the trained net, which it fine-tunes",
    "output": "the released vector; the net is the undefended victim's",
}
KNOWS = {"attack_prior": "the architecture of the attack's prior: one model for each such architecture"}
NEEDS = {
    "prior": "a generative prior, trained on the defender's public people",
    "public_net": "a classifier of the defender's public people",
}
WEAKNESSES: dict[Weakness, str] = {
    "decoys": "planted decoys, around which a search can be led",
    "fresh_noise": "noise drawn anew for each query, which repeats average out",
    "keyed_noise": "noise that hangs on the query, which other looks at the image average out",
    "rounding": "rounding or cutting off, which looks and filled zeros bring back",
}


def defense_pages(root: Path) -> dict[Path, str]:
    """Text of every page by its file: `docs/defenses/<name>.md` and the list of them."""
    folder, plugins = root / "docs" / "defenses", list_defenses()
    measured, delays = read_measured(root), _delays(root)
    texts = {
        folder / f"{name}.md": "\n".join(_page(plugin, measured, delays)) for name, plugin in plugins.items()
    }
    return {**texts, folder / "README.md": "\n".join(_index(plugins, measured, delays))}


def _page(plugin: type[Defense], measured: Measured, delays: dict[str, dict[str, float]]) -> Iterator[str]:
    yield from head(plugin, "defenses", _facts(plugin))
    yield from options(plugin)
    yield from preset_part(plugin, "defenses")
    yield from deviations(plugin)
    yield from _attackers(plugin)
    yield from measured.page_part(plugin.name)
    yield from _delay_part(plugin, delays)
    yield ""


def _facts(plugin: type[Defense]) -> list[tuple[str, str]]:
    neutral = plugin.neutral or {}
    return [
        *card_facts(plugin),
        ("acts on", WHERE[plugin.acts]),
        ("starts from", "the trained undefended victim" if plugin.starts_from == "trained" else ""),
        ("protects", _protects(plugin)),
        ("knows of the attack", "; ".join(KNOWS[one] for one in sorted(plugin.knows)) or "nothing"),
        ("needs", "; ".join(NEEDS[one] for one in sorted(plugin.needs))),
        ("strength", _knob(plugin)),
        ("switched off by", ", ".join(f"`{name} = {toml(value)}`" for name, value in neutral.items())),
        ("label", _label(plugin)),
        ("also called", ", ".join(plugin.aliases)),
    ]


def _acts(plugin: type[Defense]) -> bool:
    return plugin.acts != "nothing"


def _protects(plugin: type[Defense]) -> str:
    if not _acts(plugin):
        return ""
    return "one label for each model" if plugin.per_target else "all labels"


def _knob(plugin: type[Defense]) -> str:
    """The field from weak to strong, and the levels of a sweep where the class names them."""
    levels = ", ".join(f"`{toml(level)}`" for level in plugin.strength_levels)
    if not plugin.strength:
        return ""
    return f"`{plugin.strength}`" + (f", swept from weak to strong over {levels}" if levels else "")


def _label(plugin: type[Defense]) -> str:
    if plugin.acts != "output":
        return ""
    return "the victim's own, always" if plugin.keeps_label else "may change, with the accuracy"


def _attackers(plugin: type[Defense]) -> Iterator[str]:
    """Who knows the defense, and what that attacker does beside the attack."""
    if not _acts(plugin):
        return
    yield "\n## Attackers who know it\n"
    if plugin.acts == "output":
        yield (
            "In the *stripped* view, which is the default, a white-box attacker holds the weights and leaves "
            "the output step out: the victim is then the undefended one, and the results are equal to those "
            "without a defense, bit for bit. Black-box attacks and the *deployed* view meet this defense.\n"
        )
    weak_to = plugin().weaknesses
    if not weak_to:
        yield 'No option of `adaptive = "auto"` is aimed at it; [what can be set by hand](../adaptive.md).'
    else:
        words = "; ".join(WEAKNESSES[one] for one in sorted(weak_to))
        yield f'It is weak to {words}. What `adaptive = "auto"` then does ([options](../adaptive.md)):\n'
        yield "| attacker | options |\n| --- | --- |"
        yield from (f"| {who} | {what} |" for who, what in _chosen(plugin, weak_to))
    fresh = _fresh(plugin)
    if fresh:
        yield f"\nWith `fresh = true` it is weak to {'; '.join(WEAKNESSES[one] for one in sorted(fresh))}."


def _chosen(plugin: type[Defense], weak_to: frozenset[Weakness]) -> Iterator[tuple[str, str]]:
    """For each attacker who meets the defense, what "auto" sets."""
    is_output = plugin.acts == "output"
    views = {"white-box, deployed view": "deployed"} if is_output else {"white-box": "stripped"}
    views |= {"white-box, stripped view": "stripped"} if is_output else {}
    cases = [("score or label", ScoreVictim, "black-box")]
    cases += [(who, WhiteBoxVictim, view) for who, view in views.items()]
    for who, access, view in cases:
        yield who, _set(automatic(weak_to, access, acts=plugin.acts, view=view))


def _set(chosen: Adaptive | None) -> str:
    if chosen is None:
        return "nothing"
    fields = {one.name: getattr(chosen, one.name) for one in dataclasses.fields(chosen)}
    plain = Adaptive()
    return ", ".join(f"`{n} = {toml(v)}`" for n, v in fields.items() if v != getattr(plain, n))


def _fresh(plugin: type[Defense]) -> frozenset[Weakness]:
    """What it is weak to where its noise is drawn anew, if that is an option that is off by default."""
    names = {one.name for one in dataclasses.fields(plugin)}
    if "fresh" not in names or plugin().params()["fresh"]:
        return frozenset()
    return plugin.from_params({"fresh": True}).weaknesses


def _delays(root: Path) -> dict[str, dict[str, float]]:
    """`extra_info` of benchmarks/test_defenses.py by the defense's name, the first case of each."""
    file = root / BENCHMARK
    found: dict[str, dict[str, Any]] = {}
    for one in json.loads(file.read_text(encoding="utf-8"))["benchmarks"] if file.is_file() else ():
        name = one["name"].split("[")[-1].rstrip("]").split("-")[0]
        found.setdefault(name, one["extra_info"])
    return found


def _delay_part(plugin: type[Defense], delays: dict[str, dict[str, float]]) -> Iterator[str]:
    """What a query costs behind the output step; a defense of the net costs what the net costs."""
    delay = delays.get(plugin.name)
    if delay is None:
        return
    yield "\n## A query\n"
    yield (
        f"{delay['ms_per_query']:.2f} ms for each image of a batch on one core, "
        f"{delay['ratio']:.1f} times the plain release, with the settings of `benchmarks/test_defenses.py`."
    )


def _index(
    plugins: dict[str, type[Defense]], measured: Measured, delays: dict[str, dict[str, float]]
) -> Iterator[str]:
    yield "# Defenses\n"
    yield "<!-- written by docs/plugin_pages.py -->"
    yield "Where each acts, what its defender knows of the attack, and its one knob from weak to strong."
    if delays:
        yield "Query: how many times as long as without an output step an answer takes."
    yield from measured.index_head()
    columns = [
        "defense",
        "acts on",
        "knows",
        "models",
        "year",
        "knob",
        "query",
        *measured.index_columns(),
    ]
    yield f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    order = list(WHERE)
    for name, plugin in sorted(plugins.items(), key=lambda item: (order.index(item[1].acts), item[0])):
        knows = ", ".join(sorted(plugin.knows)).replace("_", " ")
        models = "one a label" if plugin.per_target else "one"
        knob = f"`{plugin.strength}`" if plugin.strength else ""
        delay = f"{delays[name]['ratio']:.1f}" if name in delays else ""
        words = [f"[{name}]({name}.md)", plugin.acts, knows, models, str(plugin.card.year or ""), knob, delay]
        yield f"| {' | '.join([*words, *measured.index_cells(name)])} |"
    yield ""
