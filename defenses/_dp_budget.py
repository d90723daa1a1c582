"""What a privacy budget costs in noise, and what a training has spent of it, by Opacus' accountants.

Sources: Mironov, Talwar, Zhang (arXiv:1908.10530) for Renyi accounting ("rdp"); Gopi, Lee, Wutschitz, NeurIPS
2021 (arXiv:2106.02848) for the numerical composition ("prv"), whose bound on epsilon is about 8 % lower.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opacus.accountants.accountant import IAccountant

_TOLERANCE = 0.01  # of epsilon, as in Opacus, so that budgets of 1 and more get the noise that Opacus gives
_SHARE = 0.01  # of epsilon; decides below a budget of 1, where a gap of 0.01 would waste much of it


def least_noise(*, epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The noise multiplier whose spent epsilon lies within 1 % and 0.01 under the budget, never above it.

    The search uses Renyi accounting: "prv" needs seconds for each trial where this needs milliseconds.

    Args:
        epsilon: the budget, > 0.
        delta: probability with which it may fail, in (0, 1).
        rate: Poisson sample rate, in (0, 1].
        steps: noisy steps, >= 1.

    Raises:
        ValueError: no noise is enough, since the accountant's Renyi orders end at 63.
    """
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with quiet_accounting():
            found = get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=min(_TOLERANCE, _SHARE * epsilon),
            )
    except ValueError as error:
        raise ValueError(
            f"dp_sgd: Renyi accounting certifies no epsilon as low as {epsilon} at delta {delta}, whatever "
            "the noise. Raise epsilon or delta, or give noise_multiplier with accountant = 'prv'."
        ) from error
    return float(found)


def spent(accountant: IAccountant, *, delta: float) -> float:
    """The epsilon that an accountant's steps have spent at a delta."""
    with quiet_accounting():
        return float(accountant.get_epsilon(delta=delta))


@contextmanager
def quiet_accounting() -> Iterator[None]:
    """Silence what Opacus' accountants say about noise levels that do not matter.

    The search starts at a huge noise, where the best Renyi order lies at the end of the list: the bound is
    looser there, and stays valid. At sample rate 1 the formula of "prv" takes the logarithm of 0 in a branch
    that it then discards.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        warnings.filterwarnings("ignore", message="divide by zero encountered", category=RuntimeWarning)
        yield
