"""What a stage works with: its task, its inputs as typed values, and the context for plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mibench.attack import Attack
from mibench.building import build_dataclass
from mibench.data.split import Labeled, dequantize
from mibench.defense import Defense
from mibench.embedder import Embedder, of_classifier, of_facenet
from mibench.errors import PluginError, StoreError
from mibench.graph import BASELINE
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.noise import derive_seed
from mibench.plugin import Context
from mibench.prior import PriorSpec
from mibench.registry import get_attack, get_defense, source_digest
from mibench.starting import start_from
from mibench.store import Artifact, Store
from mibench.task import Task
from mibench.victim import freeze
from mibench.weights import read_checkpoint

POINTS = "points/"  # begins the names of an embedder's tensors that are no weights, which hold no slash


@dataclass(frozen=True)
class Work:
    """One task at work.

    Args:
        task: what to do.
        store: where its inputs lie.
        ctx: randomness, device and scratch space for the plugin.
    """

    task: Task
    store: Store
    ctx: Context

    @property
    def params(self) -> dict[str, Any]:
        """The task's hashed parameters."""
        return self.task.params

    def input(self, role: str) -> Artifact:
        """The artifact of an input; StoreError where it is missing."""
        key = self.task.inputs[role]
        found = self.store.get(key)
        if found is None:
            raise StoreError(f"input '{role}' ({key[:12]}) of '{self.task.title}' is gone. Run again.")
        return found

    def labeled(self, role: str, part: str = "train") -> Labeled:
        """Labeled images, as bytes, of a data input: `train`, or of private data also `test`."""
        found = self.input(role)
        pixels = found.tensors[f"{part}_images"]
        return Labeled(pixels, found.tensors[f"{part}_labels"], tuple(found.value["identities"]))

    def public(self) -> Tensor:
        """The public images (M, C, H, W) of the input `public`, without labels."""
        return dequantize(self.input("public").tensors["train_images"])

    def attack(self) -> Attack[Any]:
        """The task's attack with its fields."""
        plugin: Attack[Any] = get_attack(self.task.plugin).from_params(self.params["attack"])
        return plugin

    def result(self, tensors: dict[str, Tensor], **value: object) -> Artifact:
        """The artifact of this task, with the notes that the plugin left."""
        return Artifact(tensors, {**value, "notes": dict(self.ctx.notes)}, self.task.description())


def defense_of(name: str, params: dict[str, Any]) -> Defense:
    """A defense by name and fields; the baseline is the family's own base class."""
    return Defense() if name == BASELINE else get_defense(name).from_params(params)


def check_source(plugin: type, source: str, name: str) -> None:
    """PluginError where a class from outside the package is not the code of this digest."""
    if source_digest(plugin) != source:
        raise PluginError(f"plugin '{name}': its file has changed since it was planned. Run again.")


def check_defense(task: dict[str, Any]) -> None:
    """`check_source` of the defense that made a stored task; a built-in one has no digest."""
    if task["source"]:
        check_source(get_defense(task["plugin"]), task["source"], task["plugin"])


def prior_spec_of(locator: dict[str, Any]) -> PriorSpec | None:
    """The prior spec that a task's locator points to: an attack's, or a defense's substitute."""
    owner = locator.get("prior_from")
    if owner is None:
        return None
    if "spec" in owner:  # of an attack whose code this process does not load
        spec: PriorSpec = owner["spec"]
        return spec
    if owner["family"] == "attack":
        attack: Attack[Any] = get_attack(owner["name"]).from_params(owner["params"])
        return attack.prior_spec()
    return get_defense(owner["name"]).from_params(owner["params"]).substitute_prior()


def new_net(params: dict[str, Any], ctx: Context) -> Classifier:
    """An untrained classifier on the CPU, with weights drawn from the context."""
    spec = build_dataclass(NetSpec, params["net"], where="net")
    return build(spec, ctx.generator("initial weights"))


def starting_net(work: Work) -> Classifier:
    """An untrained classifier as `new_net` gives it, with the weights of the user's file if there is one."""
    net, start = new_net(work.params, work.ctx), work.params.get("start")
    if start is not None:
        path = work.task.locator["start"]
        tensors = read_checkpoint(path, digest=start["weights"])
        start_from(net, tensors, use=start["use"], where=f"weights {path}")
    return net


def is_ready(params: dict[str, Any]) -> bool:
    """Whether the weights of a user's file are a trained net's, head and all, that is taken as it is."""
    return bool(params.get("start", {}).get("use") == "ready")


def trained_net(artifact: Artifact, device: torch.device) -> Classifier:
    """The classifier of a `judge`, `public_net` or `train` artifact, frozen, on a device."""
    task = artifact.task
    net = reshaped(new_net(task["params"], Context()), task["params"])
    if task["stage"] == "train":
        check_defense(task)
        net = defense_of(task["plugin"], task["params"]["defense"]).prepare(net)
    net.load_state_dict(artifact.tensors)
    freeze(net)
    return net.to(device)


def embedder_of(artifact: Artifact, device: torch.device) -> Embedder:
    """The space of faces of an `embedder` artifact, frozen, on a device."""
    state = {name: value for name, value in artifact.tensors.items() if not name.startswith(POINTS)}
    if "weights" in artifact.task["params"]:
        space = of_facenet(state, where=f"artifact of '{artifact.task['title']}'")
    else:
        net = new_net(artifact.task["params"], Context())
        net.load_state_dict(state)
        space = of_classifier(net)
    return space.to(device)


def reshaped(net: Classifier, params: dict[str, Any]) -> Classifier:
    """The net in the shape that an earlier defense of a composition gave it; the net itself without one."""
    onto = params.get("onto")
    if onto is None:
        return net
    if onto["source"]:
        check_source(get_defense(onto["plugin"]), onto["source"], onto["plugin"])
    return defense_of(onto["plugin"], onto["defense"]).prepare(net)


def joined_notes(before: Artifact, notes: dict[str, Any]) -> dict[str, Any]:
    """Notes of a task beside those of an earlier one, which bear its plugin's name where both have one.

    >>> before = Artifact({}, {"notes": {"loss": 1.0, "nats": 2.0}}, {"plugin": "mid"})
    >>> joined_notes(before, {"loss": 3.0})
    {'mid.loss': 1.0, 'nats': 2.0, 'loss': 3.0}
    """
    name = before.task["plugin"]
    earlier = before.value["notes"]
    return {**{f"{name}.{one}" if one in notes else one: value for one, value in earlier.items()}, **notes}


def weights(net: Classifier) -> dict[str, Tensor]:
    """The state of a net on the CPU, by name; floating-point values as float32."""
    return {
        name: (t.detach().float() if t.is_floating_point() else t.detach()).cpu()
        for name, t in net.state_dict().items()
    }


def stage_seed(task: dict[str, Any]) -> int:
    """The seed of a stored task's randomness, as `Task.task_seed` derived it."""
    return derive_seed(task["seed"], task["stage"], task["plugin"])


def image_tensors(labeled: Labeled, part: str) -> dict[str, Tensor]:
    """Images as bytes, and labels, for the store."""
    return {f"{part}_images": labeled.stored, f"{part}_labels": labeled.labels}
