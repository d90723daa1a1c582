"""Draw where the printed focal loss of GAN-D and GAN-ID takes a private fake, and print the numbers.

Equation 7 of Gong et al. (IEEE TIFS 2023) is -q^gamma log q, to be maximized, q being the probability of the
protected label. Its maximum lies at q = exp(-1 / gamma) and not at 0. The losses are those that the plugins
run, taken from them by name.
Usage: python docs/focal.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mibench.registry import get_defense
from mibench.report.look import DPI, INK, MUTED, PAGE_WIDTH, PALETTE, look

PICTURE = Path(__file__).resolve().parent / "figures" / "focal-literal.png"
GAMMAS = (1.0, 2.0, 5.0)
STARTS = (0.95, 0.30)
SHOWN = (0, 10, 100, 1000)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("netguard", {}),
    "focal_literal": ("gan_d", {"focal": "focal_literal"}),
    "focal_detached": ("gan_d", {"focal": "focal_detached"}),
    "focal_neg": ("decoy_neg", {}),
}
_POINTS = 999  # of the curves, at q = 0.001 to 0.999


def loss_of(variant: str, gamma: float = 2.0) -> Any:  # noqa: ANN401 - a plugin is met by its name alone
    """The defense whose `push` is the variant, without a floor."""
    name, options = VARIANTS[variant]
    focusing = {} if variant == "ce" else {"gamma": gamma}
    return get_defense(name).from_params({**options, **focusing, "push_limit": "none"})


def curve(gamma: float) -> tuple[list[float], list[float]]:
    """Values of q and of -q^gamma log q, which is minus the push of `focal_literal`."""
    defense = loss_of("focal_literal", gamma)
    q = [(place + 1) / (_POINTS + 1) for place in range(_POINTS)]
    logits = [torch.tensor([[math.log(value / (1 - value)), 0.0]], dtype=torch.float64) for value in q]
    return q, [-float(defense.push(one, 0)) for one in logits]


def peak(gamma: float) -> tuple[float, float]:
    """The q of the largest value of `curve`, and that value."""
    value, q = max((value, q) for q, value in zip(*curve(gamma)))
    return q, value


def descent(variant: str, start: float, *, gamma: float = 2.0, steps: int = SHOWN[-1]) -> list[float]:
    """Values of q at the start and after each step of gradient descent on the label's logit, at rate 1."""
    defense = loss_of(variant, gamma)
    own = torch.tensor(math.log(start / (1 - start)), dtype=torch.float64)
    path = [start]
    for _ in range(steps):
        own.requires_grad_(True)
        loss = defense.push(torch.stack([own, torch.zeros_like(own)])[None], 0)
        (slope,) = torch.autograd.grad(loss, own)
        own = (own - slope).detach()
        path.append(float(own.sigmoid()))
    return path


def numbers(paths: dict[tuple[str, float], list[float]]) -> str:
    """What the figure shows, in two tables of Markdown."""
    lines = ["| gamma | maximum at q | exp(-1 / gamma) | value |", "| --- | --- | --- | --- |"]
    for gamma in GAMMAS:
        q, value = peak(gamma)
        lines.append(f"| {gamma:g} | {q:.3f} | {math.exp(-1 / gamma):.3f} | {value:.4f} |")
    steps = " | ".join(f"after {step}" for step in SHOWN[1:])
    lines += ["", f"| push | q at the start | {steps} |", "| --- | --- " + "| --- " * len(SHOWN[1:]) + "|"]
    for (variant, start), path in paths.items():
        values = " | ".join(f"{path[step]:.4f}" for step in SHOWN[1:])
        lines.append(f"| {variant} | {start:g} | {values} |")
    return "\n".join(lines)


def draw(paths: dict[tuple[str, float], list[float]], file: Path) -> None:
    """Write the figure: the loss on the left, where descent takes a fake in the middle and on the right."""
    with look():
        figure = Figure(figsize=(PAGE_WIDTH, 2.5), layout="constrained")
        left, *others = figure.subplots(1, 1 + len(STARTS))
        _draw_loss(left)
        for axes, start in zip(others, STARTS):
            _draw_descent(axes, start, paths)
        handles, names = others[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower right", ncols=len(VARIANTS))
        file.parent.mkdir(exist_ok=True)
        figure.savefig(file, format="png", metadata={"Software": None}, dpi=DPI)


def _draw_loss(axes: Axes) -> None:
    for color, gamma in zip(PALETTE, GAMMAS):
        q, value = peak(gamma)
        axes.plot(*curve(gamma), color=color, label=f"{gamma:g}, at {q:.2f}")
        axes.plot([q], [value], "o", color=color, markersize=4)
    axes.legend(title="gamma, maximum", loc="upper right")
    axes.set(xlabel="q", ylabel="-q^gamma log q", xlim=(0, 1), ylim=(0, 0.75))
    axes.set_title("Equation 7", loc="left", color=INK)


def _draw_descent(axes: Axes, start: float, paths: dict[tuple[str, float], list[float]]) -> None:
    rest = math.exp(-1 / 2)
    axes.axhline(rest, color=MUTED, linewidth=0.7, linestyle=":")
    for color, variant in zip(PALETTE[3:], VARIANTS):
        path = paths[variant, start]
        axes.plot(range(1, len(path) + 1), path, color=color, label=variant)
    text = f"{rest:.3f}"
    axes.annotate(text, (SHOWN[-1], rest), (0, 3), textcoords="offset points", ha="right", color=MUTED)
    axes.set(xscale="log", xlabel="steps + 1", ylabel="q", ylim=(0, 1), xlim=(1, SHOWN[-1]))
    axes.set_xticks(ticks := [10**power for power in range(4)], [f"{tick}" for tick in ticks])
    axes.set_title(f"Descent from {start:.2f}", loc="left", color=INK)


if __name__ == "__main__":
    walked = {(variant, start): descent(variant, start) for variant in VARIANTS for start in STARTS}
    draw(walked, PICTURE)
    sys.stdout.write(numbers(walked) + "\n")
