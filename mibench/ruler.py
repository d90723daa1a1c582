"""The tasks that judge and measure: evaluation classifiers, the space of faces, answers, measurements."""

from __future__ import annotations

from typing import Literal

from mibench.data.source import Part
from mibench.graph import Graph, plugin_json
from mibench.key import Key
from mibench.net_choice import EmbedderChoice, NetChoice
from mibench.task import Model

MEASURE_VERSION = 5  # grows with what a measurement holds beside its metrics


def judge(graph: Graph, which: Literal["judge", "audit"], choice: NetChoice) -> Key:
    """An evaluation classifier; all seeds share it, because it is the ruler."""
    return graph.add(
        "judge",
        which,
        params={"which": which, **choice.params(graph.suite.data, graph.suite.data.private)},
        inputs={"private": graph.data("private")},
        title=f"{which} {choice.net}",
        locator=choice.locator(),
    )


def embedder(graph: Graph, choice: EmbedderChoice) -> Key:
    """A space of faces, and where private and public images lie in it; all seeds share it."""
    parts: tuple[Part, ...] = ("private", "public", *(() if choice.weights else ("defender",)))
    return graph.add(
        "embedder",
        "embedder",
        params=choice.task_params(graph.suite.data, graph.suite.data.defender),
        inputs={part: graph.data(part) for part in parts},
        title=f"embedder {choice.net}",
        locator={"weights": choice.weights} if choice.weights else {},
    )


def answer(graph: Graph, model: Model, seed: int) -> Key:
    """What a deployed model says of real images, which all attacks on it share."""
    asks_public = any(metric.asks_public for metric in graph.suite.metrics)
    return graph.add(
        "answer",
        "answer",
        params={},
        inputs={
            "train": model.train,
            **({"output": model.output} if model.output else {}),
            "private": graph.data("private"),
            **({"defender": graph.data("defender")} if asks_public else {}),
        },
        seed=seed,
        title=f"answers of {graph.tasks[model.output or model.train].title}",
    )


def measure(graph: Graph, title: str, models: tuple[Model, ...], seed: int) -> Key:
    """All metrics of one cell."""
    inputs = {
        "private": graph.data("private"),
        "defender": graph.data("defender"),
        "judge": judge(graph, "judge", graph.suite.judge),
    }
    if graph.suite.audit is not None:
        inputs["audit"] = judge(graph, "audit", graph.suite.audit)
    needs = {need for metric in graph.suite.metrics for need in metric.needs}
    if graph.suite.embedder is not None and "embedder" in needs:
        inputs["embedder"] = embedder(graph, graph.suite.embedder)
    if "public" in needs:
        inputs["public"] = graph.data("public")
    for i, model in enumerate(models):
        keys = {"train": model.train, "output": model.output, "invert": model.invert}
        inputs.update({f"{role}{i}": key for role, key in keys.items() if key is not None})
        inputs[f"answer{i}"] = answer(graph, model, seed)
    protects = [list(model.protects) for model in models]
    metrics = [plugin_json(metric) for metric in graph.suite.metrics]
    return graph.add(
        "measure",
        "measure",
        version=MEASURE_VERSION,
        params={"metrics": metrics, "protects": protects},
        inputs=inputs,
        seed=seed,
        title=f"measure {title}",
        locator={"paths": {metric.name: metric.paths() for metric in graph.suite.metrics if metric.files}},
    )
