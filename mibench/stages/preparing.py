"""Stages before any defense: images, judges, priors, the defender's public net."""

from __future__ import annotations

from typing import Any

import torch

from mibench.building import build_dataclass
from mibench.data.disjoint import check_disjoint
from mibench.data.folder import FolderData
from mibench.data.prepared_source import PreparedData
from mibench.data.source import Source
from mibench.data.synthetic import SynthFacesData
from mibench.embedder import centroids, embed, facenet_state
from mibench.errors import PluginError, WeightsError
from mibench.rates import in_top
from mibench.stages.work import (
    POINTS,
    Work,
    embedder_of,
    image_tensors,
    is_ready,
    prior_spec_of,
    starting_net,
    trained_net,
    weights,
)
from mibench.store import Artifact
from mibench.training import Recipe, accuracy, fit
from mibench.victim import freeze
from mibench.weights import read_weights

SOURCES: dict[str, type[Source]] = {
    "synthfaces": SynthFacesData,
    "folder": FolderData,
    "prepared": PreparedData,
}


def load_data(work: Work) -> Artifact:
    """The images of one part as bytes, labels, and names; LeakError where parts share a person."""
    locator = work.task.locator
    fields = {name: value for name, value in locator["data"].items() if name != "kind"}
    source = build_dataclass(SOURCES[work.task.plugin], fields, where="data")
    people = source.identities()
    check_disjoint({f"{part} part": names for part, names in people.items()})
    train, test = source.load(locator["part"])
    tensors = image_tensors(train, "train")
    if test is not None:
        tensors |= image_tensors(test, "test")
    return work.result(tensors, identities=list(people[locator["part"]]))


def judge(work: Work) -> Artifact:
    """An evaluation classifier of the private people, and its accuracy on their test images."""
    result = _classifier(work, "private")
    net = trained_net(result, work.ctx.device)
    value = accuracy(net, work.labeled("private", "test"), max_batch=work.ctx.max_batch)
    return Artifact(result.tensors, {**result.value, "accuracy": value}, result.task)


def public_net(work: Work) -> Artifact:
    """A classifier of the people on the defender's public images."""
    return _classifier(work, "defender")


def embedder(work: Work) -> Artifact:
    """A space of faces, where private and public images lie in it, and how well it knows private people.

    Its accuracy is the share of private test images that lie nearest to their own person's centroid, which is
    taken over the training images; nobody private and no image of the attacker's shapes the space itself.
    """
    result = _ready_embedder(work) if "weights" in work.params else _classifier(work, "defender")
    space = embedder_of(result, work.ctx.device)
    private, test = work.labeled("private"), work.labeled("private", "test")
    places = {
        part: embed(space, images, max_batch=work.ctx.max_batch)
        for part, images in (("private", private.pixels), ("public", work.public()), ("test", test.pixels))
    }
    likeness = places.pop("test") @ centroids(places["private"], private.labels).T
    value = float(in_top(likeness, test.labels, places=1).float().mean())
    tensors = {**result.tensors, **{f"{POINTS}{part}": points for part, points in places.items()}}
    return Artifact(tensors, {**result.value, "accuracy": value}, result.task)


def _ready_embedder(work: Work) -> Artifact:
    path = work.task.locator["weights"]
    tensors = read_weights(path, digest=work.params["weights"])
    return work.result(facenet_state(tensors, where=f"weights {path}"))


def train_prior(work: Work) -> Artifact:
    """What public images teach: by a prior spec, or by an attack with its own way."""
    if "attack" in work.params:
        return work.result(work.attack().learn_prior(work.public(), work.ctx))
    spec = prior_spec_of(work.task.locator)
    if spec is None:
        raise PluginError(f"prior {work.task.plugin}: its plugin gives no spec any more. Plan again.")
    if spec.is_ready:
        if spec.training_params() != work.params["spec"]:
            raise WeightsError(f"prior {spec.kind}: its file has changed since the plan. Run again.")
        return work.result(spec.fit(torch.empty(0), work.ctx))
    if work.params["half"] == "defender":
        return work.result(spec.fit_labeled(work.labeled("public"), work.ctx))
    return work.result(spec.fit(work.public(), work.ctx))


def _classifier(work: Work, role: str) -> Artifact:
    net = starting_net(work)
    if is_ready(work.params):
        freeze(net)
        return work.result(weights(net))
    return work.result(weights(fit(net, work.labeled(role), work.ctx, recipe=recipe_of(work.params))))


def recipe_of(params: dict[str, Any]) -> Recipe:
    """The training recipe of a task."""
    return build_dataclass(Recipe, params["recipe"], where="recipe")
