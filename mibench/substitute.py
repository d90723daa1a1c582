"""A choice among generators in a suite's table: `substitute = { kind = "cgan", steps = 2000 }`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from mibench.gan import WganClipPrior, WganPrior
from mibench.info_gan import InfoGanPrior
from mibench.labeled_gan import CganPrior
from mibench.prior import PriorSpec

KINDS: dict[str, type[PriorSpec]] = {
    kind.kind: kind for kind in (WganPrior, WganClipPrior, CganPrior, InfoGanPrior)
}


def _known(table: Any) -> Any:  # noqa: ANN401 - whatever stands in a suite
    if isinstance(table, dict) and table.get("kind", WganPrior.kind) not in list(KINDS):
        raise ValueError(f"substitute: unknown kind '{table['kind']}'. Its kinds: {', '.join(KINDS)}.")
    return table


def _class_name(table: Any) -> str:  # noqa: ANN401
    return KINDS[table.get("kind", WganPrior.kind)].__name__ if isinstance(table, dict) else "WganPrior"


def _without_kind(table: Any) -> Any:  # noqa: ANN401
    if not isinstance(table, dict):
        return table
    return {name: value for name, value in table.items() if name != "kind"}


# classes for tags: the sentences about a wrong field leave the names of classes out
Substitute = Annotated[
    Annotated[WganPrior, BeforeValidator(_without_kind), Tag("WganPrior")]
    | Annotated[WganClipPrior, BeforeValidator(_without_kind), Tag("WganClipPrior")]
    | Annotated[CganPrior, BeforeValidator(_without_kind), Tag("CganPrior")]
    | Annotated[InfoGanPrior, BeforeValidator(_without_kind), Tag("InfoGanPrior")],
    Discriminator(_class_name),
    BeforeValidator(_known),
]


def spelled(spec: PriorSpec) -> dict[str, Any]:
    """A spec as JSON values, as a suite would write it; the kind stands where it is not WGAN-GP.

    Keys of results from before there was a choice stay as they are.
    """
    fields = dataclasses.asdict(spec)
    return fields if isinstance(spec, WganPrior) else {"kind": spec.kind, **fields}
