"""How much work a task is, counted before it runs, so that the seconds of small tasks tell of large ones.

The unit is about one multiply-add. Only ratios between tasks of one kind count: what all tasks of a plugin
share, such as the number of its losses, goes into the seconds that it takes for a unit. How many operations
torch counts for a unit, `mibench profile` says for each plugin, and a test holds it within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from mibench.errors import MibenchError
from mibench.key import Key
from mibench.nets import CLASSIFIERS, NetSpec, build, count_macs

Description = Mapping[str, Any]  # `mibench.task.Task.description`, as it also lies beside an artifact
Find = Callable[[Key], Description | None]
WORK_VERSION = 2
"""Of the formulas: works of different versions cannot be compared."""
_BACKWARD = 3  # a step forward and backward costs three times the way forward: each layer has two gradients
_PER_PERSON = 20  # where a key holds a digest in place of numbers: as many images as VGGFace2 gives at least
_PEOPLE = 1000
_SIZE = 64  # pixels of a side, where nothing says it
_BATCH = 64
_PIXEL = 1000  # to draw or process a pixel's value, in multiply-adds of a net, which are that much faster
# the tables of other tasks: a prior is trained by a task of its own
_ELSEWHERE = frozenset({"prior", "substitute", "prior_spec"})
_VIEWS = 6  # of a reconstruction that the judge looks at: as it is, blurred, cropped, compressed, ...
_TIMES = frozenset({"restarts", "best_of", "candidates", "num_candidates", "samples", "population"})


def work_of(task: Description, find: Find) -> float | None:
    """Multiply-adds that a task takes, roughly; None where its stage is unknown or an input cannot be found.

    Args:
        task: stage, plugin, params and inputs.
        find: the description of the task of a key.
    """
    count = _STAGES.get(task["stage"])
    if count is None:
        return None
    try:
        return max(1.0, float(count(task, find)))
    except (KeyError, TypeError, ValueError):  # of another version of the package: nothing can be said of it
        return None


def _data(task: Description, _find: Find) -> float:
    return float(_images(task) * _small_net(task))


def _classifier(task: Description, find: Find) -> float:
    """A net that is trained on all images of its people, or a ready one that looks at them once."""
    parts = [_input(task, find, role) for role in task["inputs"]]
    recipe = task["params"].get("recipe")
    is_ready = recipe is None or task["params"].get("start", {}).get("use") == "ready"
    if is_ready:
        return float(_macs_of(task["params"]["net"]) * sum(_images(part) for part in parts))
    macs, trained = _macs_of(task["params"]["net"]), "defender"
    if task["stage"] == "embedder":  # it then places the images of the other parts
        placed = sum(_images(part) for part in parts)
    else:
        trained = "private" if task["stage"] == "judge" else "defender"
        placed = 0
    seen = _BACKWARD * recipe["epochs"] * _learned(_input(task, find, trained))
    return float(macs * (seen + placed))


def _train(task: Description, find: Find) -> float:
    """A defense's own training: epochs over the images, and steps of single batches."""
    params = task["params"]
    own, recipe = params["defense"], params["recipe"]
    epochs, steps, times = _loops(own)
    if not epochs and "base" not in task["inputs"]:
        epochs = recipe["epochs"]
    images = _learned(_input(task, find, "private"))
    rows = own.get("num_fakes", _batch(own, recipe))
    seen = epochs * images + steps * rows + own.get("fisher_samples", 0)
    return _BACKWARD * _macs_of(params["net"]) * (seen or images) * times


def _output(task: Description, find: Find) -> float:
    """The victim's answers to all images, and epochs of a small net over them."""
    epochs, steps, times = _loops(task["params"]["defense"])
    private = _input(task, find, "private")
    once = _victim_macs(task, find) * _images(private)
    own = task["params"]["defense"]
    return (once + _small_net(private, own) * (epochs * _images(private) + steps)) * times


def _prior(task: Description, find: Find) -> float:
    """A generator's training, or what an attack learns from public images in its own way."""
    spec = task["params"].get("spec")
    if not task["inputs"]:
        return 1.0  # it is ready
    public = _input(task, find, "public")
    if spec is None:
        own = task["params"]["attack"]
        epochs, _, times = _loops(own)
        return (1 + epochs) * times * _images(public) * _small_net(public, own)
    turns = 1 + spec.get("n_critic", 1)
    steps = float(spec.get("steps", 1))
    return float(_BACKWARD * steps * _batch(spec, {}) * turns * _generator_macs(spec, public))


def _adapt(task: Description, find: Find) -> float:
    """The victim's answers to public images, epochs of a small net over them, steps of a GAN on them."""
    own = task["params"]["attack"]
    epochs = _loops(own)[0]
    public = _input(task, find, "public")
    asked = _victim_macs(task, find) * float(own.get("presamples", _images(public)))
    small = _small_net(public, own) * epochs * _images(public)
    turns = own.get("adapt_steps", 0) * (1 + own.get("n_critic", 1)) + own.get("critic_lead", 0)
    # in each turn the critic sees three batches, one of them fresh from the generator
    nets = 3 * _widths(public, own.get("critic_width", 0)) + _generator_macs(own.get("prior") or {}, public)
    return float(asked + small + _BACKWARD * turns * _batch(own, {}) * nets)


def _invert(task: Description, find: Find) -> float:
    """A search for every image of every target: its steps, and how often it starts."""
    params = task["params"]
    _, steps, times = _loops(params["attack"])
    macs = float(_victim_macs(task, find))
    spec = params["attack"].get("prior")
    if isinstance(spec, Mapping):
        macs += _generator_macs(spec, _images_behind(task, find))
    return len(params["targets"]) * float(params["images"]) * (1 + steps) * times * _BACKWARD * macs


def _answer(task: Description, find: Find) -> float:
    parts = [_input(task, find, role) for role in ("private", "defender") if role in task["inputs"]]
    return _victim_macs(task, find) * sum(_images(part) for part in parts)


def _measure(task: Description, find: Find) -> float:
    """Every judge looks at the reconstructions, the main one at views of them and at their real people."""
    judges = [one for role in ("judge", "audit", "embedder") if (one := _maybe(task, find, role))]
    macs = [_macs_of(one["params"]["net"]) for one in judges]
    runs = [_input(task, find, role) for role in task["inputs"] if role.startswith("invert")]
    private = _input(task, find, "private")
    people = sum(len(run["params"]["targets"]) for run in runs)
    made = sum(len(run["params"]["targets"]) * run["params"]["images"] for run in runs)
    real = people * _learned(private) / private["params"].get("private", _PEOPLE)
    return float(made * sum(macs) + macs[0] * (made * _VIEWS + real))


_STAGES: dict[str, Callable[[Description, Find], float]] = {
    "data": _data,
    "judge": _classifier,
    "public_net": _classifier,
    "embedder": _classifier,
    "train": _train,
    "output": _output,
    "prior": _prior,
    "adapt": _adapt,
    "invert": _invert,
    "answer": _answer,
    "measure": _measure,
}


def _images_behind(task: Description, find: Find) -> Description:
    """The task of the private images behind a task that attacks a victim; KeyError where it is gone."""
    return _input(_input(task, find, "train"), find, "private")


def _input(task: Description, find: Find, role: str) -> Description:
    found = find(task["inputs"][role])
    if found is None:
        raise KeyError(role)
    return found


def _maybe(task: Description, find: Find, role: str) -> Description | None:
    return find(task["inputs"][role]) if role in task["inputs"] else None


def _images(data: Description) -> int:
    """Images of a part, if its key says how many; else what is usual."""
    params = data["params"]
    part = params["part"]
    people = params.get(part, _PEOPLE)
    each = params.get(f"{part}_images", _PER_PERSON) + params.get("test_images", 0)
    return int(people * each) if isinstance(people, int) else _PEOPLE * _PER_PERSON


def _learned(data: Description) -> int:
    """Images of a part that nets learn from: without those that test."""
    tests = data["params"].get("test_images", 0)
    people = data["params"].get(data["params"]["part"], _PEOPLE)
    return _images(data) - (tests * people if isinstance(people, int) else 0)


def _small_net(data: Description, own: Mapping[str, Any] | None = None) -> float:
    """Of a small net that draws an image, or looks at one, whatever the victim's size.

    Args:
        data: the task of the images.
        own: fields of a plugin, which may say how wide its net is.
    """
    fields = own or {}
    inner = next((one for one in fields.values() if isinstance(one, Mapping) and "units" in one), {})
    if "units" in inner:  # one layer to so many units, and one back
        return 2 * float(inner["units"]) * _pixels(data)
    return _widths(data, fields["width"]) if "width" in fields else float(_PIXEL * _pixels(data))


def _widths(data: Description, *widths: float) -> float:
    """Of layers with as many channels to as many at each pixel, 3 x 3 each."""
    return 9 * _pixels(data) / 3 * sum(float(width) ** 2 for width in widths)


def _pixels(data: Description) -> int:
    params = data["params"]
    return int(params.get("size", _SIZE)) ** 2 * int(params.get("channels", 3))


def _victim_macs(task: Description, find: Find) -> int:
    return _macs_of(_input(task, find, "train")["params"]["net"])


def _generator_macs(spec: Mapping[str, Any], data: Description) -> float:
    """Of a generator and its critic together."""
    return max(_widths(data, spec.get("width", 0), spec.get("critic_width", 0)), _widths(data, 1))


def _loops(table: Mapping[str, Any]) -> tuple[float, float, float]:
    """Epochs, steps and starts that the fields of a plugin name, at any depth."""
    epochs, steps, times = 0.0, 0.0, 1.0
    for name, value in table.items():
        if isinstance(value, Mapping) and name not in _ELSEWHERE:
            inner = _loops(value)
            epochs, steps, times = epochs + inner[0], steps + inner[1], times * inner[2]
        elif isinstance(value, bool) or not isinstance(value, int | float):
            continue
        elif name.endswith("epochs"):
            epochs += value
        elif name.endswith("steps") or name in {"max_iter", "iterations"}:
            steps += value
        elif name in _TIMES:
            times *= max(1.0, value)
    return epochs, steps, times


def _batch(table: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return float(table.get("batch", other.get("batch", _BATCH)))


def _macs_of(net: Mapping[str, Any]) -> int:
    spec = {name: net.get(name, 0) for name in ("name", "width", "channels", "size", "num_classes")}
    return _count(**spec)


@lru_cache(maxsize=256)
def _count(name: str, width: int, channels: int, size: int, num_classes: int) -> int:
    """Multiply-adds of one image; a net that cannot be built counts as one channel to one at each pixel."""
    if name not in CLASSIFIERS:
        return size * size * channels
    spec = NetSpec(name=name, width=width, channels=channels, size=size, num_classes=max(2, int(num_classes)))
    try:
        net = build(spec, torch.Generator().manual_seed(0))
    except (MibenchError, ValueError):
        return size * size * channels
    with torch.inference_mode():
        return count_macs(net, torch.zeros(1, channels, size, size))
