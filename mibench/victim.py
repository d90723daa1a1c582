"""Victims: what an attack holds of the attacked classifier. The type is the access level.

`LabelVictim < ScoreVictim < WhiteBoxVictim`: each adds methods, so a type checker rejects `scores` in a
label-only attack and at run time the method is not there. Every image that is asked about is counted.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from mibench.errors import AccessError, QueryBudgetError
from mibench.memory import in_chunks, is_out_of_memory
from mibench.nets.classifier import Classifier

Released = Callable[[Tensor], Tensor]
# a larger floor would take the gradient from rows that are still far from their target
_LEAST_PROBABILITY = torch.finfo(torch.float32).tiny


@dataclass
class QueryCount:
    """Images asked about: by forward passes, and those of them with a graph for gradients."""

    forward: int = 0
    gradient: int = 0


class LabelVictim:
    """A frozen classifier that tells labels only.

    Args:
        released: images (N, C, H, W) -> released probabilities (N, K).
        shape: channels, height and width of its images.
        num_classes: number of identities K.
        device: where it computes; images may come from anywhere.
        max_queries: number of images after which QueryBudgetError is raised; None counts only.
        max_batch: images in one chunk.
        allowance: images that may be asked about for each reconstruction, with which an attack plans its
            steps; None where there is no limit.
    """

    level = "label"

    def __init__(
        self,
        released: Released,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        device: torch.device | str = "cpu",
        max_queries: int | None = None,
        max_batch: int = 256,
        allowance: int | None = None,
    ) -> None:
        self.shape = shape
        self.num_classes = num_classes
        self.device = torch.device(device)
        self.max_queries = max_queries
        self.max_batch = max_batch
        self.allowance = allowance
        self.queries = QueryCount()
        self.per_image = 1
        self.__released = released

    def labels(self, x: Tensor) -> Tensor:
        """Most probable label of each image of x (N, C, H, W): (N,), int64, on x's device."""
        return self._release(x).argmax(1)

    def steps_within(self, wanted: int, *, per_step: int, reserve: int = 0, shared_by: int = 1) -> int:
        """Steps that the allowance pays for, at most `wanted`.

        An attack that plans with this stops cleanly, and alike for each reconstruction whatever the chunks.

        Args:
            wanted: steps without a limit, >= 0.
            per_step: images asked about in a step for each reconstruction, >= 0.
            reserve: images asked about before and after the steps for each reconstruction, >= 0.
            shared_by: reconstructions that share the steps, >= 1; the other numbers then hold for all of
                them together.

        Raises:
            QueryBudgetError: the reserve alone is more than the allowance.
        """
        if self.allowance is None:
            return wanted
        allowance = self.allowance * shared_by
        per_step, reserve = per_step * self.per_image, reserve * self.per_image
        if reserve > allowance:
            raise QueryBudgetError(
                f"a budget of {self.allowance} queries for each reconstruction is too small: "
                f"{-(-reserve // shared_by)} are "
                "needed before a first step. Raise max_queries, or lower the attack's restarts."
            )
        return wanted if per_step == 0 else min(wanted, (allowance - reserve) // per_step)

    def asked_through(self, change: Callable[[Released], Released], *, per_image: int = 1) -> Self:
        """The same victim and the same query count, with other answers.

        Args:
            change: takes the map of images to released probabilities and gives the one that is asked instead.
            per_image: times that the new map asks the old one about each image.
        """
        other = copy.copy(self)
        other.__released = change(self.__released)
        other.per_image = self.per_image * per_image
        return other

    def _release(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise AccessError(
                f"a {self.level}-level victim gives no gradients. "
                "Pass x.detach() or declare white-box access."
            )
        self._count(len(x), gradient=False)

        def told(part: Tensor) -> Tensor:
            return self.__released(part.to(self.device)).to(x.device)

        with torch.no_grad():
            return in_chunks(told, x, rows=self.max_batch, what="answers of the victim")

    @contextmanager
    def refunded(self) -> Iterator[None]:
        """Inside, what runs out of memory has asked nothing: it is asked again, in smaller parts."""
        forward, gradient = self.queries.forward, self.queries.gradient
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                self.queries.forward, self.queries.gradient = forward, gradient
            raise

    def _count(self, images: int, *, gradient: bool) -> None:
        images = images * self.per_image
        if self.max_queries is not None and self.queries.forward + images > self.max_queries:
            raise QueryBudgetError(
                f"query budget of {self.max_queries} images is spent ({self.queries.forward} used, {images} "
                "more asked for). Raise max_queries or lower the attack's steps."
            )
        self.queries.forward += images
        self.queries.gradient += images if gradient else 0

    if not TYPE_CHECKING:  # a type checker that saw this method would let every access pass

        def __getattr__(self, name: str) -> None:
            raise AccessError(f"a {self.level}-level victim has no '{name}'. Declare a higher access level.")


class ScoreVictim(LabelVictim):
    """A frozen classifier that tells its released probability vector, without gradients."""

    level = "score"

    def scores(self, x: Tensor) -> Tensor:
        """Released probabilities of x (N, C, H, W): (N, K), float32, rows sum to 1, no gradient."""
        return self._release(x)


class WhiteBoxVictim(ScoreVictim):
    """A frozen classifier in the attacker's hands: weights, logits and gradients.

    Args:
        released: see LabelVictim; what the deployed system answers.
        net: the classifier whose weights the attacker holds.
        view: images -> differentiable logits; None takes `net` itself, the *stripped* view, in which an
            output-time defense is gone. The *deployed* view passes the logarithm of the released vector.
        options: as for LabelVictim.
    """

    level = "white-box"

    def __init__(
        self,
        released: Released,
        net: Classifier,
        *,
        view: Released | None = None,
        max_queries: int | None = None,
        max_batch: int = 256,
        allowance: int | None = None,
    ) -> None:
        spec = net.spec
        super().__init__(
            released,
            shape=(spec.channels, spec.size, spec.size),
            num_classes=spec.num_classes,
            device=next(net.parameters()).device,
            max_queries=max_queries,
            max_batch=max_batch,
            allowance=allowance,
        )
        self.net = net
        self._view: Released = net if view is None else view

    def seen_through(self, change: Callable[[Released], Released], *, per_image: int = 1) -> Self:
        """The same victim and the same query count, with other logits.

        Args:
            change: takes the present map of images to logits and gives the one that is searched instead: a
                mean over students, over views of the image, or with a penalty taken off.
            per_image: times that the new map asks the old one about each image.
        """
        other = copy.copy(self)
        other._view = change(self._view)
        other.per_image = self.per_image * per_image
        return other

    def logits(self, x: Tensor) -> Tensor:
        """Logits of x (N, C, H, W): (N, K), float32, differentiable; counted as one query an image."""
        self._count(len(x), gradient=x.requires_grad and torch.is_grad_enabled())
        return self._view(x)


def log_released(probabilities: Tensor) -> Tensor:
    """Logits (N, K) of the deployed white-box view: the logarithm of the released vector."""
    return probabilities.clamp_min(_LEAST_PROBABILITY).log()


def freeze(net: nn.Module) -> nn.Module:
    """The net in eval mode with parameters that ask for no gradient."""
    return net.eval().requires_grad_(False)


def fingerprint(net: nn.Module) -> str:
    """SHA-256 over weights, buffers, modes and left-over gradients: equal only if nothing was touched."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    modes = [module.training for module in net.modules()]
    grads = [(p.requires_grad, p.grad is None) for p in net.parameters()]
    digest.update(repr((modes, grads)).encode())
    return digest.hexdigest()
