"""The losses of the NetGuard family on one label's probability.

q is the probability of the protected label on a private fake, r the one on a fake of the decoy. What is
minimized is a push that should lower q, in one of four forms, and a pull that raises r:

    ce               log q
    focal_literal    q^gamma log q
    focal_detached   [q^gamma] log q                  [.] is a constant for the gradient
    focal_neg        -[q^gamma] log(1 - q)
    pull             -(1 - r)^gamma log r

The first is unbounded below. The second is equation 7 as printed: its slope q^(gamma - 1) (gamma log q + 1)
is zero at q = exp(-1 / gamma), where it has its minimum, so it raises every q below that. The third is what
the text tells of the second; like the first it hardly moves a fake that the victim is sure of, since the
slope of log q in the label's logit is 1 - q. The fourth is ours, the focal loss of a negative example: it
is never below 0, moves sure fakes most and lets go of those that are away.
Source: Gong et al., IEEE TIFS 2023, equations 7 and 8; Lin et al., ICCV 2017 (arXiv:1708.02002), equation 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Focal = Literal["focal_literal", "focal_detached"]
FakeLoss = Literal["ce", "focal_literal", "focal_detached"]
PushLoss = Literal["ce", "focal_literal", "focal_detached", "focal_neg"]
Push = Callable[[Tensor, Tensor, float], Tensor]

LOWEST_LOG_Q = -10.0  # a fake at q = 4.5e-5 is far enough away; log q alone has no lower bound


def _ce(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    return log_q


def _focal_literal(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    return (gamma * log_q).exp() * log_q


def _focal_detached(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    return (gamma * log_q).exp().detach() * log_q


def _focal_neg(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    return -(gamma * log_q).exp().detach() * log_not_q


# loss of a private fake to minimize, (N,), from log q (N,), log(1 - q) (N,) and gamma
PUSHES: dict[PushLoss, Push] = {
    "ce": _ce,
    "focal_literal": _focal_literal,
    "focal_detached": _focal_detached,
    "focal_neg": _focal_neg,
}


def log_odds(logits: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Two logarithms (N,), of p and of 1 - p of one label, from logits (N, K); finite like the logits."""
    own = logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1).logsumexp(1)
    return F.logsigmoid(own - others), F.logsigmoid(others - own)


def let_go(log_q: Tensor, log_not_q: Tensor) -> tuple[Tensor, Tensor]:
    """The same logarithms (N,), without a gradient where log q lies below LOWEST_LOG_Q."""
    far = log_q < LOWEST_LOG_Q
    return log_q.clamp_min(LOWEST_LOG_Q), torch.where(far, log_not_q.detach(), log_not_q)
