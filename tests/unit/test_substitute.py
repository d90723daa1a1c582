"""The choice of a substitute in a suite's table: kinds, sentences about wrong ones, and how it is spelled."""

from __future__ import annotations

from typing import Any

import pytest

from mibench.gan import WganClipPrior, WganPrior
from mibench.info_gan import InfoGanPrior
from mibench.labeled_gan import CganPrior
from mibench.prior import PriorSpec
from mibench.registry import get_defense
from mibench.substitute import KINDS, spelled


def substitute(table: dict[str, Any], name: str = "gan_id") -> Any:
    return get_defense(name).from_params({"substitute": table})


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ({"steps": 3}, WganPrior(steps=3)),
        ({"kind": "wgan_gp", "steps": 3}, WganPrior(steps=3)),
        ({"kind": "wgan_clip", "clip": 1}, WganClipPrior(clip=1.0)),
        ({"kind": "cgan", "label_dim": 8}, CganPrior(label_dim=8)),
        ({"kind": "infogan", "draws": 2}, InfoGanPrior(draws=2)),
    ],
)
@pytest.mark.parametrize("name", ["netguard", "gan_d", "gan_id"])
def test_a_table_names_its_kind(name: str, table: dict[str, Any], wanted: PriorSpec) -> None:
    defense = substitute(table, name)
    assert defense.substitute_prior() == wanted
    assert get_defense(name).from_params(defense.params()) == defense


def test_the_kind_of_before_is_not_spelled_out() -> None:
    plain = get_defense("gan_id")().params()["substitute"]
    assert plain == spelled(WganPrior())
    assert "kind" not in plain
    assert substitute({"kind": "wgan_gp"}) == get_defense("gan_id")()
    for kind, spec in KINDS.items():
        assert spelled(spec()).get("kind", "wgan_gp") == kind == spec.kind
        assert substitute({"kind": kind}).key_params()["substitute"].get("kind", "wgan_gp") == kind


@pytest.mark.parametrize("kind", ["gan", 3, ["cgan"]])
def test_an_unknown_kind_is_named_with_those_there_are(kind: object) -> None:
    with pytest.raises(ValueError, match=r"unknown kind .* Its kinds: wgan_gp, wgan_clip, cgan, infogan"):
        substitute({"kind": kind})


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            {"kind": "cgan", "gp_weight": 1.0},
            "no field 'substitute.gp_weight'. Its fields: latent_dim, label_dim",
        ),
        ({"kind": "infogan", "value": 3}, "Did you mean 'substitute.values'"),
        ({"gp_wight": 1.0}, "Did you mean 'substitute.gp_weight'"),
        ({"kind": "wgan_clip", "lr": "fast"}, "'substitute.lr' is wrong"),
        ({"kind": "cgan", "lr": 0.0}, "prior cgan: lr must be > 0"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_of_its_kind(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        substitute(table)
