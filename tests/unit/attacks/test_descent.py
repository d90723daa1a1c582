"""What both pixel descents keep to: allowance, effort curve, public starts, the search in a code."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.errors import QueryBudgetError
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim, freeze

pixels: Any = importlib.import_module("mibench.attacks._pixels")

SHAPE = (3, 4, 4)
Engine = Literal["mi_face", "mi_face_bb"]
ENGINES = pytest.mark.parametrize("engine", ["mi_face", "mi_face_bb"])
NOISY: dict[str, Any] = {
    "init": "random",
    "loss": "ce",
    "normalize_grad": True,
    "step": 0.03,
    "max_iter": 20,
    "conf_stop": 1.0,
    "process": "blur",
    "process_every": 4,
}
CODE: dict[str, Any] = {
    "process": "dae",
    "process_every": 5,
    "dae": {"units": 12, "epochs": 60, "batch": 8, "lr": 0.01},
    "loss": "ce",
    "normalize_grad": True,
    "step": 0.05,
    "init": "mean",
    "max_iter": 20,
    "conf_stop": 1.0,
}
EACH = {"mi_face": 1, "mi_face_bb": 1 + 2 * 5}  # images asked about in an evaluation with a step


def attack_of(engine: Engine, **options: Any) -> Any:
    """One of the two attacks with these fields; Any, because its own methods are called."""
    black = {"estimator": "subset", "samples": 5} if engine == "mi_face_bb" else {}
    return get_attack(engine).from_params({**black, **options})


def victim_of(engine: Engine, *, allowance: int | None = None, max_queries: int | None = None) -> Any:
    """Exactly the victim that the engine declares."""
    spec = NetSpec(name="mlp", width=16, size=4, num_classes=3)
    net = build(spec, torch.Generator().manual_seed(5))
    freeze(net)
    limits: dict[str, Any] = {"allowance": allowance, "max_queries": max_queries}
    if engine == "mi_face":
        return WhiteBoxVictim(lambda x: net(x).softmax(1), net, **limits)
    return ScoreVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=3, **limits)


def faces() -> Tensor:
    """Public images (40, 3, 4, 4) that lie on a line between two pictures."""
    ends = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(8))
    share = torch.linspace(0, 1, 40)[:, None, None, None]
    return share * ends[0] + (1 - share) * ends[1]


def run(engine: Engine, victim: Any, targets: Sequence[int], **options: Any) -> Reconstructions:
    attack, ctx = attack_of(engine, **options), Context(seed=3)
    prior = attack.adapt_prior(attack.learn_prior(faces(), ctx), victim, faces(), ctx)
    got: Reconstructions = attack.invert(victim, prior, torch.tensor(targets), ctx)
    return got


# the allowance and the effort curve


@ENGINES
@pytest.mark.parametrize(("restarts", "steps"), [(1, 0), (1, 6), (3, 2)])
def test_each_row_asks_what_the_allowance_pays_for_and_no_more(
    engine: Engine, restarts: int, steps: int
) -> None:
    asked = restarts * (1 + steps * EACH[engine])
    spare = restarts * EACH[engine] - 1  # not quite enough for another step
    options = {**NOISY, "restarts": restarts, "patience": 60}
    victim = victim_of(engine, allowance=asked + spare, max_queries=2 * asked)
    got = run(engine, victim, [0, 2], **options)
    assert victim.queries.forward == 2 * asked
    assert got.effort is not None
    assert got.effort.queries[-1] == asked
    if steps:
        shorter = run(engine, victim_of(engine), [0, 2], **{**options, "max_iter": steps})
        assert torch.equal(got.images, shorter.images)


@ENGINES
def test_an_allowance_below_one_look_for_each_restart_is_refused(engine: Engine) -> None:
    with pytest.raises(QueryBudgetError, match="budget of 2 queries"):
        run(engine, victim_of(engine, allowance=2), [0], **NOISY, restarts=3)


@ENGINES
def test_the_effort_curve_falls_from_the_start_to_the_result(engine: Engine) -> None:
    options = {**NOISY, "restarts": 3, "patience": 60}
    victim = victim_of(engine)
    got = run(engine, victim, [0, 1, 2, 0], **options)
    effort = got.effort
    assert effort is not None
    assert effort.queries.tolist()[:3] == [3, 3 * (1 + EACH[engine]), 3 * (1 + 2 * EACH[engine])]
    assert int(effort.queries[-1]) * 4 == victim.queries.forward
    assert (effort.loss.diff(dim=0) <= 0).all()
    assert torch.equal(effort.images[-1], quantize(got.images))
    at = effort.queries.tolist().index(3 * (1 + 4 * EACH[engine]))
    shorter = run(engine, victim_of(engine), [0, 1, 2, 0], **{**options, "max_iter": 4})
    assert torch.equal(effort.images[at], quantize(shorter.images))
    assert effort.single is not None
    assert (effort.single != effort.images[-1]).any()  # some row is better off with another restart


@ENGINES
def test_a_curve_of_rows_that_stopped_early_goes_on_as_it_ended(engine: Engine) -> None:
    victim = victim_of(engine)
    got = run(engine, victim, [0, 1], **{**NOISY, "conf_stop": 0.5, "max_iter": 400, "process": "clip"})
    assert got.effort is not None
    assert int(got.effort.queries[-1]) == -(-victim.queries.forward // 2)
    assert victim.queries.forward < 2 * (1 + 400 * EACH[engine])  # else the test says nothing
    assert len(got.effort.queries) == len(got.effort.images) == len(got.effort.loss)
    assert torch.equal(got.effort.images[-1], quantize(got.images))
    assert got.effort.single is None


# starts from public images, and the search in a code


@ENGINES
def test_public_starts_are_the_images_that_the_victim_likes_next(engine: Engine) -> None:
    victim = victim_of(engine)
    options: dict[str, Any] = {"init": "public", "max_iter": 1, "step": 1e-9, "process": "none"}
    got = run(engine, victim, [1, 0, 1], **options)
    assert victim.queries.forward == 40 + 3 * (1 + EACH[engine])
    order = victim.scores(faces()).argsort(dim=0, descending=True)
    expected = faces()[torch.stack([order[0, 1], order[0, 0], order[1, 1]])]
    torch.testing.assert_close(got.images, expected, atol=0.5 / 255 + 1e-6, rtol=0)
    effort = run(engine, victim, [1, 1], **options, restarts=2, public_starts=3).effort
    assert effort is not None
    assert effort.single is not None
    firsts = faces()[torch.stack([order[0, 1], order[2, 1]])]
    torch.testing.assert_close(effort.single / 255, firsts, atol=1 / 255 + 1e-6, rtol=0)


def test_the_auto_encoder_gives_public_images_back_better_than_their_mean() -> None:
    attack = attack_of("mi_face", **CODE)
    prior = attack.learn_prior(faces(), Context(seed=3))
    code = attack.dae.load(prior, SHAPE, Context())
    again = code.decode(code.encode(faces()))
    assert (again - faces()).square().mean() < 0.5 * (faces() - faces().mean(0)).square().mean()
    assert sorted(prior) == ["code.inner", "code.outer", "code.weights", "mean"]


@ENGINES
def test_a_search_in_the_code_climbs_and_stays_near_the_public_images(engine: Engine) -> None:
    code = {**CODE, "estimator": "all"} if engine == "mi_face_bb" else CODE
    got = run(engine, victim_of(engine), [0, 1, 2], **code)
    start = run(engine, victim_of(engine), [0, 1, 2], **{**code, "step": 1e-9})
    assert (got.confidence > start.confidence).all()
    free = run(engine, victim_of(engine), [0, 1, 2], **{**code, "process": "clip"})
    assert off_the_line(got.images) < 0.5 * off_the_line(free.images)


def off_the_line(images: Tensor) -> float:
    """Mean distance of images to the line that the public images lie on."""
    along = (faces()[-1] - faces()[0]).flatten()
    along = along / along.norm()
    from_start = images.flatten(1) - faces()[0].flatten()
    return float((from_start - (from_start @ along)[:, None] * along).norm(dim=1).mean())


def test_process_dae_encodes_the_sharpened_denoised_drawing() -> None:
    attack = attack_of("mi_face", **CODE, sharpen=0.8)
    prior = attack.learn_prior(faces(), Context(seed=3))
    canvas = attack._canvas(prior, SHAPE, Context())
    codes = canvas.enter(faces()[:2])
    torch.testing.assert_close(canvas.settle(codes * 3, 4), (codes * 3).clamp(0, 1))
    drawn = attack.nlm.of(canvas.draw(codes))
    expected = canvas.enter(pixels.unsharp(drawn, 0.8, 0.5).clamp(0, 1))
    torch.testing.assert_close(canvas.settle(codes, 5), expected)


@ENGINES
def test_searches_in_the_code_do_not_meet(engine: Engine) -> None:
    # differences lift the roundings of two answers by 1 / (2 delta)
    code = {**CODE, "delta": 0.1} if engine == "mi_face_bb" else CODE
    together = run(engine, victim_of(engine), [0, 1, 2], **code)
    alone = run(engine, victim_of(engine), [1], **code)
    torch.testing.assert_close(together.images[1:2], alone.images, atol=1e-5, rtol=0)


def test_non_local_means_are_sharpened_and_wait_for_their_turn() -> None:
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    attack = attack_of("mi_face", process="nlm", sharpen=0.0)
    torch.testing.assert_close(attack.processed(x, 20), attack.nlm.of(x))
    sharper = attack_of("mi_face", process="nlm", sharpen=2.0).processed(x, 20)
    assert sharper.std() > attack.processed(x, 20).std()
    assert torch.equal(attack.processed(x, 19), x)


@ENGINES
@pytest.mark.parametrize(("field", "value"), [("units", 0), ("epochs", 0), ("batch", 0), ("corruption", 1.0)])
def test_an_impossible_auto_encoder_is_refused(engine: Engine, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"dae: {field} must .*{value}"):
        attack_of(engine, dae={field: value})
