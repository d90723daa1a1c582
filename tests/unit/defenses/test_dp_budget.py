"""The budget of DP-SGD: noise multipliers that are known, and what they spend against what was asked."""

from __future__ import annotations

from typing import Any, cast

import pytest
from opacus.accountants import create_accountant
from opacus.accountants.utils import get_noise_multiplier

from mibench.registry import get_defense

# the bound of a small budget is best at the last Renyi order, where it is looser and stays valid
pytestmark = pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning")
# images, expected batch, epochs
SIZES = [(400, 64, 20), (2000, 256, 40), (3840, 1024, 15)]


def dp_sgd(**fields: object) -> Any:
    """The defense, found by name as its users find it; its type is unknown here."""
    return cast(Any, get_defense("dp_sgd"))(**fields)


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "noise"),
    [
        (28_029, 32, 30, 0.520),
        (28_029, 64, 50, 0.598),
        (28_029, 256, 50, 0.766),
        (28_029, 1024, 100, 1.422),
        (400, 64, 20, 1.412),
        (2000, 64, 20, 0.856),
        (2000, 256, 40, 1.660),
        (4000, 128, 30, 0.937),
    ],
)
def test_noise_for_epsilon_8(images: int, batch: int, epochs: int, noise: float) -> None:
    """28,029 images are those of the usual 1000 identities of CelebA, but for two of each."""
    assert dp_sgd(batch=batch, epochs=epochs).noise(images) == pytest.approx(noise, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "noise"), [(1.0, 3.40), (50.0, 0.434), (100.0, 0.343)])
def test_noise_for_other_budgets(epsilon: float, noise: float) -> None:
    assert dp_sgd(epsilon=epsilon, batch=64, epochs=20).noise(2000) == pytest.approx(noise, abs=2e-3)


@pytest.mark.parametrize(("images", "batch", "epochs"), SIZES)
@pytest.mark.parametrize("epsilon", [0.2, 1.0, 8.0, 50.0])
def test_what_is_spent_lies_within_a_percent_under_the_budget(
    epsilon: float, images: int, batch: int, epochs: int
) -> None:
    defense = dp_sgd(epsilon=epsilon, batch=batch, epochs=epochs)
    noise, rate = defense.noise(images), defense.sample_rate(images)
    accountant = create_accountant("rdp")
    for _ in range(defense.steps(images)):
        accountant.step(noise_multiplier=noise, sample_rate=rate)
    assert 0.99 * epsilon <= accountant.get_epsilon(delta=defense.delta) <= epsilon


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_from_a_budget_of_1_on_the_noise_is_opacus_own(epsilon: float) -> None:
    """A tighter search would move every number that rests on its noise."""
    own = get_noise_multiplier(target_epsilon=epsilon, target_delta=1e-5, sample_rate=0.25, steps=40)
    assert dp_sgd(epsilon=epsilon, batch=60, epochs=10).noise(240) == own


def test_a_budget_that_no_noise_keeps_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no epsilon as low as 0.05 at delta 1e-05.*Raise epsilon or delta"):
        dp_sgd(epsilon=0.05, batch=60, epochs=10).noise(240)


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 50.0])
def test_the_tighter_accountant_stays_under_the_budget_too(epsilon: float) -> None:
    defense = dp_sgd(epsilon=epsilon, batch=60, epochs=10)
    history = [(defense.noise(240), defense.sample_rate(240), defense.steps(240))]
    renyi, numerical = create_accountant("rdp"), create_accountant("prv")
    renyi.history, numerical.history = history, history
    assert 0.85 * epsilon < numerical.get_epsilon(delta=1e-5) < renyi.get_epsilon(delta=1e-5)


def test_batches_of_more_than_there_are_images_take_all_of_them() -> None:
    defense = dp_sgd(batch=64, epochs=5)
    assert defense.sample_rate(40) == 1.0
    assert defense.steps(40) == 5
