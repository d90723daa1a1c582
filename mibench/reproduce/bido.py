"""Accuracies of Peng et al., KDD 2022 (BiDO), as the names of the authors' checkpoints give them."""

from __future__ import annotations

from mibench.reported import papers, read_reported
from mibench.reproduce import expected
from mibench.reproduce.layout import JUDGE_ACCURACY, NONE, Claim, Column, Layout, Measure

_MAIN, _BETA = "lambda_x=0.05;lambda_y=0.5", "beta=0.003"  # the authors' main setting; MID's own
_EVALUATION = ("none", "evaluation model")


def _columns() -> tuple[Column, ...]:
    """A column for every defense and variant that is reported, in the order of the file."""
    pairs = dict.fromkeys((row.defense, row.variant) for row in read_reported("bido"))
    return tuple(
        Column(
            heading=_heading(defense, variant),
            defense=_label(defense, variant),
            printed=(defense, variant),
            metric=JUDGE_ACCURACY if (defense, variant) == _EVALUATION else "",
        )
        for defense, variant in pairs
    )


def _heading(defense: str, variant: str) -> str:
    text = variant.replace("lambda_x=", "").replace("lambda_y=", "").replace(";", ", ")
    return f"{defense} {text}".strip()


def _label(defense: str, variant: str) -> str:
    """Our label: the plugin's for the main settings, else with the settings behind it.

    A further run of a setting is that setting; what is no HSIC and no MID mibench does not have by that name.
    """
    setting = ";".join(part for part in variant.split(";") if "=" in part)
    values = "_".join(f"{float(part.split('=')[1]):g}" for part in setting.split(";") if part)
    if defense == "none":
        return NONE
    if defense == "BiDO-HSIC":
        return "bido" if setting == _MAIN else f"bido_{values}"
    if defense == "MID":
        return "mid" if setting == _BETA else f"mid_{values}"
    return f"{defense.lower().replace('-', '_')}_{values}"


ACCURACY = Layout(
    name="bido",
    title="What BiDO and MID cost",
    citation=papers()["bido"].paper,
    suite="defenses",
    attacks={"none": ""},
    columns=_columns(),
    measures=(Measure(printed="test_acc", heading="accuracy", metric="mc_all"),),
    paper="bido",
    tables=("checkpoint names", "figure 1 caption"),
    by_model=True,
    notes=("Numbers behind BiDO are lambda_x, lambda_y. No attack accuracy of this paper could be read.",),
)
LAYOUTS = (ACCURACY,)


def claims(layout: Layout) -> list[Claim]:
    """What the accuracies support, on CelebA, against the first undefended checkpoint."""

    def column(defense: str, variant: str) -> Column:
        return next(one for one in layout.columns if one.printed == (defense, variant))

    plain, main, mid = column("none", "checkpoint a"), column("BiDO-HSIC", _MAIN), column("MID", _BETA)
    heavy, strong = column("BiDO-HSIC", "lambda_x=0.05;lambda_y=2.5"), column("MID", "beta=0.01")
    found = []
    for one in (main, mid, heavy, strong):
        found += expected.costing(layout, one, plain, "test_acc")
    for one in (main, mid):
        found += expected.keeping(layout, one, plain, "test_acc")
    for better, worse in ((main, heavy), (mid, strong), (main, mid)):
        found += expected.restoring(layout, better, worse, "test_acc")
    return found
