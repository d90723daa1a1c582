"""Stages of a defense: training and output step; and the deployed model that the two make."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Released
from mibench.errors import PluginError
from mibench.graph import BASELINE
from mibench.nets import NetSpec
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.stages.preparing import recipe_of
from mibench.stages.work import (
    Work,
    check_defense,
    defense_of,
    is_ready,
    joined_notes,
    new_net,
    prior_spec_of,
    reshaped,
    stage_seed,
    starting_net,
    trained_net,
    weights,
)
from mibench.store import Artifact
from mibench.victim import ScoreVictim, freeze

_TIMED = 64  # queries in the batch whose time is put on record


def train(work: Work) -> Artifact:
    """The weights of the protected model; PluginError where its state cannot be loaded again."""
    defense = defense_of(work.task.plugin, work.params["defense"])
    is_first = "base" not in work.task.inputs
    net = reshaped(starting_net(work) if is_first else new_net(work.params, work.ctx), work.params)
    base = None if is_first else work.input("base")
    if base is not None:
        net.load_state_dict(base.tensors)
    net = defense.prepare(net).to(work.ctx.device)
    if work.task.plugin == BASELINE and is_ready(work.params):
        trained = net
        freeze(net)
    else:
        trained = defense.train(net, defender_view(work), work.ctx)
    result = work.result(weights(trained))
    if "onto" in work.params and base is not None:
        result = dataclasses.replace(result, value={"notes": joined_notes(base, result.value["notes"])})
    try:
        trained_net(result, torch.device("cpu"))
    except RuntimeError as error:  # what load_state_dict raises for a state of another net
        raise PluginError(
            f"defense '{work.task.plugin}': what it trained does not load into what it prepared ({error}). "
            "Reshape the net in `prepare`."
        ) from error
    return result


def learn_output(work: Work) -> Artifact:
    """The tensors of the output step; what a query costs behind it lies among the costs."""
    defense = defense_of(work.task.plugin, work.params["defense"])
    net, view = trained_net(work.input("train"), work.ctx.device), defender_view(work)
    result = work.result(defense.learn_output(net, view, work.ctx))
    module = deployed(net, result, work.ctx.device, work.ctx.max_batch)
    asked = next(view.private_train.chunks(_TIMED))[0].to(work.ctx.device)
    costs = {
        "ms_per_query": ms_per_query(module, asked),
        "plain_ms_per_query": ms_per_query(Released(net), asked),
    }
    return dataclasses.replace(result, costs=costs)


@torch.no_grad()
def ms_per_query(module: nn.Module, images: Tensor) -> float:
    """Milliseconds for each of images (N, C, H, W) in one batch, the faster of two rounds."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        module(images).cpu()  # waits for the device
        times.append(time.perf_counter() - start)
    return 1000 * min(times) / len(images)


def deployed(net: Classifier, output: Artifact | None, device: torch.device, max_batch: int) -> nn.Module:
    """Images -> released probabilities: of the output step, or plainly softmax where there is none.

    Args:
        net: the trained model.
        output: artifact of the output step, or None.
        device: where to compute.
        max_batch: largest number of images in one chunk.
    """
    if output is None:
        return Released(net)
    task = output.task
    check_defense(task)
    state = {name: tensor.to(device) for name, tensor in output.tensors.items()}
    with tempfile.TemporaryDirectory(prefix="mibench-") as scratch:
        ctx = Context(seed=stage_seed(task), device=device, scratch=Path(scratch), max_batch=max_batch)
        module = defense_of(task["plugin"], task["params"]["defense"]).protect(net, state, ctx)
    return freeze(module.to(device))


def as_victim(module: nn.Module, spec: NetSpec, ctx: Context) -> ScoreVictim:
    """A deployed model behind the methods of a victim; `spec` is that of its net."""
    return ScoreVictim(
        module,
        shape=(spec.channels, spec.size, spec.size),
        num_classes=spec.num_classes,
        device=ctx.device,
        max_batch=ctx.max_batch,
    )


def defender_view(work: Work) -> DefenderView:
    """All that the defender of a `train` or `output` task sees; the baseline sees no public images."""
    private = work.labeled("private")
    has_public = "defender" in work.task.inputs
    view = DefenderView(
        private_train=private,
        public=work.labeled("defender") if has_public else private.of(),
        targets=torch.tensor(work.params.get("protects", []), dtype=torch.int64),
        recipe=recipe_of(work.params),
        prior_spec=prior_spec_of(work.task.locator),
    )
    if "prior" in work.task.inputs:
        view = dataclasses.replace(view, prior=work.input("prior").tensors)
    if "public_net" in work.task.inputs:
        net = trained_net(work.input("public_net"), work.ctx.device)
        view = dataclasses.replace(view, public_net=net)
    return view
