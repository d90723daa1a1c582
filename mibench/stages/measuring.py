"""The last stage: every metric on one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.data.split import Labeled, dequantize
from mibench.metric import Case, Estimate, Metric, ProtectedVictim
from mibench.provenance import provenance
from mibench.registry import get_metric
from mibench.stages.protecting import as_victim, deployed
from mibench.stages.scrutiny import Attacked, scrutiny
from mibench.stages.work import POINTS, Work, embedder_of, joined_notes, trained_net
from mibench.store import Artifact
from mibench.victim import log_released


def measure(work: Work) -> Artifact:
    """The measured part of a record, as JSON."""
    models = [_Model(work, i) for i in range(len(work.params["protects"]))]
    case, accuracies = case_of(work, models)
    return Artifact(
        {},
        {
            "estimates": estimates_of(work, case),
            "queries": _queries(models),
            "notes": _notes(models),
            "scrutiny": scrutiny(case, [model.attacked for model in models], work.ctx.child("scrutiny")),
            **accuracies,
            "provenance": provenance(work.ctx.device),
        },
        work.task.description(),
    )


class Measurable(Protocol):
    """What a measurement asks of one model of a cell."""

    @property
    def got(self) -> Reconstructions:
        """What was reconstructed from it."""
        ...

    @property
    def protected(self) -> Tensor:
        """(B,) bool, whether the model protects the reconstructed label."""
        ...

    @property
    def victim(self) -> ProtectedVictim:
        """The deployed model."""
        ...

    @property
    def goal(self) -> str:
        """Of the attack, `class` or `instance`."""
        ...


def case_of(work: Work, models: Sequence[Measurable]) -> tuple[Case, dict[str, float | None]]:
    """The case of a cell from its models and from the task's inputs that judge.

    Returns:
        The case; and by name the accuracies of judge, audit and embedder, None where the suite has none.
    """
    judge = work.input("judge")
    audit = work.input("audit") if "audit" in work.task.inputs else None
    case = Case(
        got=_join([model.got for model in models]),
        protected=torch.cat([model.protected for model in models]),
        victims=tuple(model.victim for model in models),
        private_train=work.labeled("private"),
        private_test=work.labeled("private", "test"),
        defender_public=work.labeled("defender"),
        judge=trained_net(judge, work.ctx.device),
        max_batch=work.ctx.max_batch,
        audit=None if audit is None else trained_net(audit, work.ctx.device),
        truth=_truth(models, work.labeled("private")),
        public=work.labeled("public") if "public" in work.task.inputs else None,
    )
    space = work.input("embedder") if "embedder" in work.task.inputs else None
    if space is not None:
        case.embedder = embedder_of(space, work.ctx.device)
        case.private_points, case.public_points = (
            space.tensors[f"{POINTS}{part}"] for part in ("private", "public")
        )
    rulers = {"judge": judge, "audit": audit, "embedder": space}
    return case, {
        f"{name}_accuracy": None if ruler is None else ruler.value["accuracy"]
        for name, ruler in rulers.items()
    }


def estimates_of(work: Work, case: Case) -> dict[str, dict[str, Any] | None]:
    """By metric of the task its estimate of a case, as a record has it."""
    paths = work.task.locator.get("paths", {})  # of users' files
    metrics: list[Metric] = [
        get_metric(m["name"]).planned(m["params"], paths.get(m["name"], {})) for m in work.params["metrics"]
    ]
    estimates: dict[str, dict[str, Any] | None] = {}
    for i, metric in enumerate(metrics):
        with _noted(f"metric '{metric.name}'"):
            estimates[metric.name] = _estimate_json(metric.measure(case, work.ctx.child(metric.name)))
        work.ctx.report(i + 1, len(metrics))
    return estimates


class _Model:
    """One model of the cell: its deployed victim, what was reconstructed from it, what it left."""

    def __init__(self, work: Work, index: int) -> None:
        train, invert = work.input(f"train{index}"), work.input(f"invert{index}")
        output = work.input(f"output{index}") if f"output{index}" in work.task.inputs else None
        net = trained_net(train, work.ctx.device)
        protects = tuple(work.params["protects"][index])
        defended = train.value["notes"] if output is None else joined_notes(train, output.value["notes"])
        attacked = {**invert.value["prior_notes"], **invert.value["notes"]}
        # prefixed, so that no attack speaks for the defense
        self.notes: dict[str, Any] = {
            **defended,
            **{f"attack.{name}": value for name, value in attacked.items()},
        }
        module = deployed(net, output, work.ctx.device, work.ctx.max_batch)
        self.attacked = Attacked(_view(invert, net, module), work.ctx.device, invert.tensors)
        decoy = defended.get("decoy")
        answers = work.input(f"answer{index}").tensors
        self.victim = ProtectedVictim(
            as_victim(module, net.spec, work.ctx),
            protects,
            None if decoy is None else int(decoy),
            test_answers=answers["test"],
            public_answers=answers.get("public"),
        )
        tensors = invert.tensors
        self.got = Reconstructions(dequantize(tensors["images"]), tensors["targets"], tensors["confidence"])
        self.protected: Tensor = torch.isin(self.got.targets, torch.tensor(protects))
        self.queries: dict[str, int] = invert.value["queries"]
        self.goal: str = invert.value.get("goal", "class")  # older artifacts know no other
        self.prior_forward = int(invert.value["prior_forward"])
        # artifacts that lack it are older than the first attack that adapts with the victim's gradients
        self.prior_gradient = int(invert.value.get("prior_gradient", 0))


def _view(invert: Artifact, net: nn.Module, module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Images -> logits as the white-box attack of an `invert` artifact saw them; None for any other."""
    view = invert.task["params"]["view"]
    if view == "deployed":
        return lambda x: log_released(module(x))
    return net if view == "stripped" else None


def _truth(models: Sequence[Measurable], private: Labeled) -> Tensor | None:
    """The image behind each reconstruction as the `invert` stage took it, or None for class goals."""
    if any(model.goal != "instance" for model in models):
        return None
    return torch.cat([private.in_turn(model.got.targets) for model in models])


def _join(parts: list[Reconstructions]) -> Reconstructions:
    return Reconstructions(
        torch.cat([part.images for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.confidence for part in parts]),
    )


def _queries(models: list[_Model]) -> dict[str, float]:
    """Queries for each reconstruction, and queries spent on adapting the prior, summed over models."""
    images = sum(len(model.got.targets) for model in models)
    return {
        "forward_per_image": sum(model.queries["forward"] for model in models) / images,
        "gradient_per_image": sum(model.queries["gradient"] for model in models) / images,
        "prior_forward": sum(model.prior_forward for model in models),
        "prior_gradient": sum(model.prior_gradient for model in models),
    }


def _notes(models: list[_Model]) -> dict[str, Any]:
    """The notes of the only model, or for each note a list over the models."""
    if len(models) == 1:
        return models[0].notes
    names = sorted({name for model in models for name in model.notes})
    return {name: [model.notes.get(name) for model in models] for name in names}


def _estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    numbers = {name: float(getattr(estimate, name)) for name in ("value", "low", "high")}
    finite = {name: value if torch.tensor(value).isfinite() else None for name, value in numbers.items()}
    return {**finite, "count": int(estimate.count)}


@contextmanager
def _noted(what: str) -> Iterator[None]:
    """Let every error through with a note of what was at work."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise
