"""Stages of an attack: adapting its prior to a victim, and inverting labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.defense import Released
from mibench.errors import PluginError
from mibench.nets.classifier import Classifier
from mibench.stages.adapting import adapt_with, invert_with
from mibench.stages.protecting import deployed
from mibench.stages.work import Work, trained_net
from mibench.store import Artifact
from mibench.victim import LabelVictim, WhiteBoxVictim, fingerprint, freeze, log_released


def adapt(work: Work) -> Artifact:
    """The prior after the attack asked the victim about public images, and the queries that this took."""
    attack = work.attack()
    held = Held(work, attack.needed_access, attack.name)
    prior = adapt_with(attack, held.victim, prior_of(work), work.public(), work.ctx)
    held.check()
    return work.result(prior, queries=held.queries())


def invert(work: Work) -> Artifact:
    """The reconstructions as bytes, their targets and confidence, and the queries that they took."""
    attack = work.attack()
    targets = targets_of(work)
    held = Held(work, attack.needed_access, attack.name, count=len(targets))
    prior = prior_of(work)
    if attack.goal == "instance":
        released = held.eavesdropped(work.labeled("private").in_turn(targets))
        got = attack.reconstruct(held.victim, prior, released, targets, work.ctx)
    else:
        got = invert_with(attack, held.victim, prior, targets, work.ctx)
    held.check()
    return inverted(work, got, goal=attack.goal, shape=held.victim.shape, queries=held.queries())


def inverted(
    work: Work, got: Reconstructions, *, goal: str, shape: tuple[int, int, int], queries: dict[str, int]
) -> Artifact:
    """The artifact of an attack's reconstructions.

    Args:
        work: the task that asked for them.
        got: what the attack gave.
        goal: `Attack.goal`.
        shape: channels, height and width of the victim's images.
        queries: images asked about, `forward` and `gradient`.

    Raises:
        PluginError: they are not what the task asks for.
    """
    _check(work.task.plugin, got, targets_of(work).tolist(), shape)
    tensors = {
        "images": quantize(got.images),
        "targets": got.targets,
        "confidence": got.confidence,
        **_effort_tensors(got),
    }
    adapted = work.input("prior").value if "prior" in work.task.inputs else {}
    asked = adapted.get("queries", {})
    return work.result(
        tensors,
        goal=goal,
        queries=queries,
        prior_forward=asked.get("forward", 0),
        prior_gradient=asked.get("gradient", 0),
        prior_notes=adapted.get("notes", {}),
    )


class Held:
    """The victim of a task, and whether its attack left it as it was.

    Args:
        work: the task.
        access: the attack's.
        name: of the attack.
        count: reconstructions that the task's budget of queries is for.
    """

    def __init__(self, work: Work, access: type[LabelVictim], name: str, *, count: int = 0) -> None:
        device, max_batch = work.ctx.device, work.ctx.max_batch
        net = trained_net(work.input("train"), device)
        output = work.input("output") if "output" in work.task.inputs else None
        module = freeze(deployed(net, output, device, max_batch))
        self.access, self.name, self.released = access, name, module
        self.parts = (net, module)
        self.before = [fingerprint(part) for part in self.parts]
        # an attack that plans with the allowance never meets the hard limit behind it
        allowance = work.params.get("max_queries")
        limit = None if allowance is None else allowance * count
        self.options: dict[str, Any] = {"max_queries": limit, "allowance": allowance, "max_batch": max_batch}
        self.victim = self._victim(net, module, work.params["view"])

    def _victim(self, net: Classifier, module: nn.Module, view: str) -> LabelVictim:
        """A victim of exactly the class that the attack declares."""
        if issubclass(self.access, WhiteBoxVictim):
            is_deployed = view == "deployed"
            return self.access(
                module if is_deployed else Released(net),
                net,
                view=(lambda x: log_released(module(x))) if is_deployed else None,
                **self.options,
            )
        spec = net.spec
        return self.access(
            module,
            shape=(spec.channels, spec.size, spec.size),
            num_classes=spec.num_classes,
            device=next(net.parameters()).device,
            **self.options,
        )

    def eavesdropped(self, images: Tensor) -> Tensor:
        """What the attacked view releases for private images (B, C, H, W): (B, K); no query of the attack."""
        device, parts = self.victim.device, images.split(self.victim.max_batch)
        with torch.no_grad():
            return torch.cat([self.released(part.to(device)).cpu() for part in parts])

    def check(self) -> None:
        """Raise PluginError where weights, buffers, modes or gradients of the victim changed."""
        if [fingerprint(part) for part in self.parts] != self.before:
            raise PluginError(
                f"attack '{self.name}' changed its victim's weights, mode or gradients. "
                "Work on a copy, and take gradients with torch.autograd.grad."
            )

    def queries(self) -> dict[str, int]:
        """Images asked about."""
        return {"forward": self.victim.queries.forward, "gradient": self.victim.queries.gradient}


def _effort_tensors(got: Reconstructions) -> dict[str, Tensor]:
    """The effort curve of reconstructions, for the store."""
    effort = got.effort
    if effort is None:
        return {}
    curve = {"queries": effort.queries, "images": effort.images, "loss": effort.loss}
    single = {} if effort.single is None else {"single": effort.single}
    return {f"effort.{name}": tensor.contiguous() for name, tensor in {**curve, **single}.items()}


def targets_of(work: Work) -> Tensor:
    """The labels that a task attacks, (B,), int64, one for each reconstruction."""
    labels = [label for label in work.params["targets"] for _ in range(work.params["images"])]
    return torch.tensor(labels, dtype=torch.int64)


def prior_of(work: Work) -> dict[str, Tensor]:
    """The tensors of a task's prior; none where it has none."""
    return work.input("prior").tensors if "prior" in work.task.inputs else {}


def _check(name: str, got: Reconstructions, labels: list[int], shape: tuple[int, int, int]) -> None:
    """Raise PluginError where an attack returns something else than it was asked for."""
    wanted = (len(labels), *shape)
    if tuple(got.images.shape) != wanted or got.targets.tolist() != labels:
        raise PluginError(
            f"attack '{name}': it returned images {tuple(got.images.shape)}, wanted {wanted}, or not "
            "the targets that it was asked for. Return one image for each target, in order."
        )
    if tuple(got.confidence.shape) != (len(labels),):
        raise PluginError(
            f"attack '{name}': its confidence has shape {tuple(got.confidence.shape)}, wanted "
            f"({len(labels)},). Return one number for each image."
        )
    if not bool(torch.isfinite(got.images).all()):
        raise PluginError(f"attack '{name}': its images hold NaN or infinity. Check its step size.")
