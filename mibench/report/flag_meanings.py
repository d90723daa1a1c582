"""What the flags of records mean, in one sentence each; docs/metrics.md and docs/adaptive.md say more.

The one table of their words: tables, pages and the command line take them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mibench.audit import CONTROL_ABOVE_CHANCE, JUDGE_MISSES, JUDGES_DISAGREE
from mibench.report.escape import plain

MEANINGS = {
    JUDGES_DISAGREE: (
        "A second opinion confirms the judge's successes less than half as often as it knows real images."
    ),
    JUDGE_MISSES: (
        "All second opinions together see the person more often than the judge does: AA is too low, and the "
        "defense looks better than it is."
    ),
    CONTROL_ABOVE_CHANCE: "Images that show nobody are taken for the targeted people above chance.",
    "stale": "The plugin or the suite has changed since, and a later night measures the cell anew.",
    "judge_below_gate": "The judge knows real people worse than the suite asks, so AA says little.",
    "audit_below_gate": (
        "The audit judge knows real people worse than the suite asks, so its agreement says little."
    ),
    "embedder_below_gate": (
        "The embedder knows real people worse than the suite asks, so its agreement says little."
    ),
    "judge_has_the_victims_architecture": (
        "An attack on the victim may fool this judge for the same reasons."
    ),
    "fakes_missed_label": (
        "The decoy defense learned from fakes that do not look like their label, so the cell says little "
        "about the method."
    ),
    "zero_input_gradients": (
        "For most public images the loss towards a protected label has no gradient: the defense hides "
        "gradients, and people perhaps not."
    ),
    "loss_falls_but_aa_does_not_rise": (
        "The attack's loss falls and its AA does not rise, where on the undefended victim it does: the "
        "attack follows something that is not the person."
    ),
    "restarts_help_more_than_on_the_undefended": (
        "Choosing among restarts gains more than on the undefended victim: the search is stuck more often, "
        "and more restarts may leak more."
    ),
    "black_box_beats_white_box": (
        "An attack without gradients beats all with gradients on this defense: the gradients mislead, and "
        "the white-box numbers are too low."
    ),
}
COMPARED = frozenset(
    {
        "loss_falls_but_aa_does_not_rise",
        "restarts_help_more_than_on_the_undefended",
        "black_box_beats_white_box",
    }
)
"""Flags that come from other cells of the suite: a run of the cell alone does not draw them."""


_IN_TABLES = frozenset({JUDGES_DISAGREE, JUDGE_MISSES, CONTROL_ABOVE_CHANCE})
"""Flags whose meaning tables say too: they doubt the very numbers that the table holds."""


def flags(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags of a cell in the words of tables; a flag may be a word, or a table of name and message."""
    return tuple(map(_words, _raw(record)))


def explained_flags(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The flags of a record in words, each with what it means; empty for one whose words say it already."""
    return [(_words(one), _meaning(one)) for one in _raw(record)]


def _raw(record: Mapping[str, Any]) -> list[str]:
    found = record.get("flags") or ()
    return [" ".join(map(str, flag.values())) if isinstance(flag, Mapping) else str(flag) for flag in found]


def _words(flag: str) -> str:
    text = flag.replace("_", " ")
    if flag in _IN_TABLES:
        meaning = MEANINGS[flag].removesuffix(".")
        text += f" ({meaning[0].lower()}{meaning[1:]})"
    return plain(text)


def _meaning(flag: str) -> str:
    text = "" if flag in _IN_TABLES else MEANINGS.get(flag, "")
    return f"{text} Drawn from a comparison with other cells of the suite." if flag in COMPARED else text
