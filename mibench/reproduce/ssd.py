"""Tables of Zhuang et al., ICLR 2025: Stealthy Shield Defense against black-box attacks."""

from __future__ import annotations

from collections.abc import Mapping

from mibench.reported import papers
from mibench.reproduce import expected
from mibench.reproduce.layout import NONE, Claim, Column, Layout, Measure

_ATTACK_MEASURES = (
    Measure(printed="AA_top1", heading="AA top-1", metric="aa"),
    Measure(printed="AA_top5", heading="AA top-5", metric="aa5"),
    Measure(printed="delta_eval", heading="delta eval", metric="knn_distance", percent=False),
    Measure(printed="delta_face", heading="delta face", metric="", percent=False),
)
_UTILITY_MEASURES = (
    Measure(printed="test_acc", heading="accuracy", metric="mc_all"),
    Measure(printed="distortion_L1", heading="distortion", metric="", percent=False),
)
NO_DEFENSE = Column(heading="none", defense=NONE, printed=("none", ""))
_MID = Column(heading="MID", defense="mid", printed=("MID", ""))
_BIDO = Column(heading="BiDO", defense="bido", printed=("BiDO", ""))
_LS = Column(heading="LS", defense="negative_ls", printed=("LS", ""))
_TL = Column(heading="TL", defense="tl_dmi", printed=("TL", ""))
_PURIFIER = Column(heading="Purifier", defense="purifier", printed=("Purifier", ""))
_SSD = Column(heading="SSD", defense="ssd", printed=("SSD", ""))
_ALL = (NO_DEFENSE, _MID, _BIDO, _LS, _TL, _SSD)
_OTHERS = (_MID, _BIDO, _LS, _TL, _PURIFIER)
_SOFT, _HARD = {"Mirror": "mirror_bb", "C2FMI": "c2fmi"}, {"BREP": "brep_mi", "LOKT": "lokt"}
_UTILITY = {"none": ""}


def _table(
    number: int,
    title: str,
    attacks: Mapping[str, str],
    columns: tuple[Column, ...] = _ALL,
    *notes: str,
) -> Layout:
    measures: tuple[Measure, ...] = _ATTACK_MEASURES if any(attacks.values()) else ()
    measures += _UTILITY_MEASURES if "none" in attacks else ()
    return Layout(
        name=f"ssd/table{number}",
        title=title,
        citation=papers()["ssd"].paper,
        suite="defenses",
        attacks=attacks,
        columns=columns,
        measures=measures,
        paper="ssd",
        tables=(str(number),),
        by_model=True,
        notes=(
            *notes,
            "delta eval is a distance of features, ours knn_distance: each has the scale of its own judge. "
            "mibench does not measure the distance in FaceNet's features.",
        )
        if any(attacks.values())
        else ("mibench does not measure the distortion of the output.",),
    )


LAYOUTS = (
    _table(1, "Attacks on soft labels", _SOFT),
    _table(2, "Attacks on hard labels", _HARD),
    _table(3, "What the defenses cost", _UTILITY),
    _table(6, "A reinforced attack on soft labels", {"RLBMI": "rlb_mi"}),
    _table(7, "SSD and Purifier", {**_SOFT, **_HARD, **_UTILITY}, (_PURIFIER, _SSD, NO_DEFENSE)),
    _table(8, "Images of 224 pixels", {"Mirror": "mirror_bb", **_UTILITY}),
)


def claims(layout: Layout) -> list[Claim]:
    """What a table supports: SSD protects more than the others, at no more cost."""
    found = []
    if any(one.metric == "aa" for one in layout.measures):
        for column in layout.columns:
            if column is not NO_DEFENSE:
                found += expected.lowering(layout, column, NO_DEFENSE, each=column is _SSD)
        for other in (one for one in layout.columns if one in _OTHERS):
            found += expected.lowering(layout, _SSD, other, each=False)
        found += expected.distancing(layout, _SSD, NO_DEFENSE, "delta_eval")
    if any(one.metric == "mc_all" for one in layout.measures):
        found += expected.keeping(layout, _SSD, NO_DEFENSE, "test_acc")
        for column in (one for one in layout.columns if one in _OTHERS):
            found += expected.costing(layout, column, NO_DEFENSE, "test_acc")
            found += expected.restoring(layout, _SSD, column, "test_acc")
    return found
