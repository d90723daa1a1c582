"""Claims as the reported numbers bear them: code reads the direction off the table, nobody types it in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from mibench.reproduce.layout import NONE, Claim, Column, Kind, Layout

_LAST_DIGIT = 1.0  # points: tables print AA in whole percent; chance, 0.1 % of 1000 people, lies below it


def lowering(layout: Layout, column: Column, reference: Column, *, each: bool = True) -> list[Claim]:
    """Claims that a defense lowers AA: pooled over the attacks, and under each where every data set shows it.

    Args:
        layout: of the table.
        column: the defense.
        reference: what it is compared with.
        each: whether single attacks are claims too.
    """
    beside = "" if reference.defense == NONE else f" below that of {reference.heading}"
    tag = _tag(column) + ("" if reference.defense == NONE else f"-below-{_tag(reference)}")
    own = _any(layout)
    groups = [own, *((one,) for one in own if each and len(own) > 1)]
    claims = []
    for attacks in groups:
        if not _all_lower(layout, column, reference, attacks):
            continue
        whom = "all attacks together" if len(attacks) > 1 else layout.attack_of(attacks[0])
        end = "" if attacks == own else f"-{_slug(whom)}"
        sentence = f"{column.heading} lowers the accuracy of {whom}{beside}."
        claims.append(
            _claim(
                f"lowers-{tag}{end}",
                sentence,
                "lowers AA",
                columns=(column,),
                reference=reference,
                attacks=attacks,
                is_detail=attacks != own,
            )
        )
    return claims


def stopping(layout: Layout, column: Column, reference: Column) -> list[Claim]:
    """Claims that a defense brings an attack down to guessing, where every data set prints at most 1 %."""
    claims = []
    for label in _any(layout):
        printed = layout.attack_of(label)
        pairs = _pairs(layout, column, reference, (label,), _aa(layout))
        worth = [pair for pair in pairs if pair[1] > _LAST_DIGIT]
        if worth and all(own <= _LAST_DIGIT for own, _ in pairs):
            sentence = f"Against {column.heading} {printed} does no better than guessing."
            claims.append(
                _claim(f"chance-{_tag(column)}-{_slug(printed)}", sentence, "at chance", columns=(column,),
                       reference=reference, attacks=(label,), limit=_LAST_DIGIT / 100, is_detail=True)
            )  # fmt: skip
    return claims


def keeping(layout: Layout, column: Column, reference: Column, printed: str = "MC_all") -> list[Claim]:
    """The claim that a defense costs at most the points that it costs the paper anywhere in the table.

    The limit is the largest reported drop, rounded up to whole points, and at least one point: a table can
    not tell less from nothing.
    """
    drops = [ref - own for own, ref in _cells(layout, column, reference, printed)]
    if not drops:
        return []
    points = max(1, math.ceil(max(drops)))
    sentence = f"{column.heading} costs at most {points} point{'s' * (points > 1)} of accuracy."
    return [
        _claim(f"keeps-{_tag(column)}", sentence, "keeps accuracy", columns=(column,), reference=reference,
               attacks=_any(layout),
               limit=points / 100, metric="mc_all")
    ]  # fmt: skip


def costing(layout: Layout, column: Column, reference: Column, printed: str = "MC_all") -> list[Claim]:
    """The claim that a defense costs accuracy."""
    sentence = f"{column.heading} costs accuracy."
    tag = f"costs-{_tag(column)}"
    return _moving(layout, column, reference, printed, sign=-1, tag=tag, sentence=sentence)


def restoring(layout: Layout, column: Column, reference: Column, printed: str = "MC_all") -> list[Claim]:
    """The claim that a variant is more accurate than another."""
    people = "on the protected people " if printed == "MC_lt" else ""
    sentence = f"{column.heading} is more accurate {people}than {reference.heading}."
    tag = f"{printed.lower().replace('_', '-')}-{_tag(column)}-above-{_tag(reference)}"
    return _moving(layout, column, reference, printed, sign=1, tag=tag, sentence=sentence)


def distancing(layout: Layout, column: Column, reference: Column, printed: str = "FID") -> list[Claim]:
    """The claim that reconstructions lie farther from the real images, where every data set shows it."""
    attacks = _any(layout)
    pairs = _pairs(layout, column, reference, attacks, printed)
    metric = next(one.metric for one in layout.measures if one.printed == printed)
    if not pairs or not all(own > ref for own, ref in pairs):
        return []
    sentence = f"{column.heading} moves reconstructions away from the real images."
    return [
        _claim(f"distance-{_tag(column)}", sentence, "raises distance", columns=(column,),
               reference=reference, attacks=attacks, metric=metric)
    ]  # fmt: skip


def ordering(layout: Layout, reference: Column, data: str) -> list[Claim]:
    """Claims that undefended attacks rank as they do on one data set, each adjacent pair.

    Disputed where the table's other data rank a pair the other way.
    """
    ranked = sorted(
        (
            (layout.value((data, "", printed), reference, _aa(layout)), printed, label)
            for printed, label in layout.attacks.items()
        ),
        key=lambda one: -one[0],
    )
    return [
        _claim(
            f"order-{_slug(first)}-{_slug(second)}",
            f"Without defense {first} is more accurate than {second}, as on {data}.",
            "attack order", columns=(reference,), reference=reference, attacks=(stronger, weaker),
            disputed=_turned(layout, reference, first, second),
        )
        for (high, first, stronger), (low, second, weaker) in itertools.pairwise(ranked)
        if high > low
    ]  # fmt: skip


def _turned(layout: Layout, reference: Column, first: str, second: str) -> str:
    """On which data the second attack is more accurate than the first; empty where on none."""
    found = []
    for scene in layout.scenes:
        high, low = (layout.value((*scene, name), reference, _aa(layout)) for name in (first, second))
        if high < low:
            where = ", ".join(word for word in scene if word)
            found.append(f"on {where} {second} has {low:g} % and {first} {high:g} %")
    return f"the paper's own numbers do not all say so: {'; '.join(found)}" if found else ""


def alike(layout: Layout, columns: Sequence[Column], reference: Column) -> list[Claim]:
    """The claim that each of several variants lowers AA over all attacks together."""
    attacks = _any(layout)
    if not all(_all_lower(layout, column, reference, attacks) for column in columns):
        return []
    names = ", ".join(column.heading for column in columns)
    return [
        _claim("alike", f"Each of {names} lowers attack accuracy.", "all lower AA", columns=tuple(columns),
               reference=reference, attacks=attacks)
    ]  # fmt: skip


def _moving(
    layout: Layout,
    column: Column,
    reference: Column,
    printed: str,
    *,
    sign: int,
    tag: str,
    sentence: str,
) -> list[Claim]:
    """A claim about accuracy, that it rises (1) or falls (-1); disputed where not all data sets agree."""
    kind: Kind = "raises accuracy" if sign > 0 else "costs accuracy"
    pairs = _pairs(layout, column, reference, tuple(layout.attacks.values()), printed)
    against = [pair for pair in pairs if sign * (pair[0] - pair[1]) <= 0]
    metric = next((one.metric for one in layout.measures if one.printed == printed), "mc_all")
    disputed = ""
    if against or not pairs:
        own, ref = against[0] if against else (math.nan, math.nan)
        disputed = f"the paper's own numbers do not all say so ({own:g} against {ref:g} %)"
    return [
        _claim(
            tag,
            sentence,
            kind,
            columns=(column,),
            reference=reference,
            attacks=_any(layout),
            metric=metric,
            disputed=disputed,
        )
    ]


def _all_lower(layout: Layout, column: Column, reference: Column, attacks: tuple[str, ...]) -> bool:
    """Whether AA is lower on every data set on which there was any to lower."""
    pairs = [pair for pair in _pairs(layout, column, reference, attacks, _aa(layout)) if pair[1] > 0]
    return bool(pairs) and all(own < ref for own, ref in pairs)


def _pairs(
    layout: Layout, column: Column, reference: Column, attacks: Iterable[str], printed: str
) -> list[tuple[float, float]]:
    """The reported number and its reference by data set, means over attacks."""
    names = [layout.attack_of(label) for label in attacks]
    pairs = []
    for scene in layout.scenes:
        found = [
            (layout.value((*scene, name), column, printed), layout.value((*scene, name), reference, printed))
            for name in names
        ]
        found = [pair for pair in found if not any(map(math.isnan, pair))]
        if found:
            pairs.append((_mean(pair[0] for pair in found), _mean(pair[1] for pair in found)))
    return pairs


def _cells(layout: Layout, column: Column, reference: Column, printed: str) -> list[tuple[float, float]]:
    pairs = [
        (layout.value(place, column, printed), layout.value(place, reference, printed))
        for place in layout.places
    ]
    return [pair for pair in pairs if not any(map(math.isnan, pair))]


def _claim(
    tag: str,
    sentence: str,
    kind: Kind,
    *,
    columns: tuple[Column, ...],
    reference: Column,
    attacks: tuple[str, ...],
    metric: str = "",
    limit: float = 0.0,
    disputed: str = "",
    is_detail: bool = False,
) -> Claim:
    return Claim(
        id=tag, sentence=sentence, kind=kind, columns=columns, reference=reference, attacks=attacks,
        metric=metric, limit=limit, disputed=disputed, is_detail=is_detail,
    )  # fmt: skip


def _any(layout: Layout) -> tuple[str, ...]:
    """The attacks whose cells show an accuracy; any one where the table is about victims alone."""
    return tuple(label for label in layout.attacks.values() if label)


def _aa(layout: Layout) -> str:
    return next((one.printed for one in layout.measures if one.metric == "aa"), "AA")


def _tag(column: Column) -> str:
    return _slug(column.defense)


def _slug(text: str) -> str:
    return text.lower().replace("_", "-").replace(" ", "-")


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
