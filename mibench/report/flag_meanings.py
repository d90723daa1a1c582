"""What the flags of records mean, in one sentence each; docs/metrics.md and docs/adaptive.md say more."""

from __future__ import annotations

from mibench.report.frame import Json, flags

MEANINGS = {
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


def explained_flags(record: Json) -> list[tuple[str, str]]:
    """The flags of a record in words, each with what it means; empty for one whose words say it already."""
    raw = [str(one) for one in record.get("flags") or ()]
    return [(text, _meaning(one)) for one, text in zip(raw, flags(record))]


def _meaning(flag: str) -> str:
    text = MEANINGS.get(flag, "")
    return f"{text} Drawn from a comparison with other cells of the suite." if flag in COMPARED else text
