"""Structural similarity of reconstructions to the mean image of their person."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._means import mean_of
from .ssim import similarity


@dataclass(frozen=True, kw_only=True)
class ClassMeanSsim(Metric):
    """Mean similarity (SSIM) of reconstructions to the mean training image of their label, in [-1, 1].

    The pixel-wise mean of a person's private training images is what an attack without a prior can hope for
    at best (MI-Face shows it for softmax regression), and no judge has a say in it. An image of nobody in
    particular scores well above zero where all faces are aligned, so the number means something only beside
    that of the control `mean_face`. Protected labels; interval over labels, then images.
    """

    name = "class_mean_ssim"
    title = "SSIM (class mean)"
    better = "lower"
    card = Card(
        title="SSIM of a reconstruction to the mean private training image of its label",
        deviations=("The index is that of Wang et al. (IEEE TIP 2004); the reference image is ours.",),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The similarity; `count` is the number of reconstructions, None without any."""
        images, targets = case.got.images[case.protected], case.got.targets[case.protected]
        if len(targets) == 0:
            return None
        means = {
            label: case.private_train.of(label).images.double().mean(0) for label in targets.unique().tolist()
        }
        values = [
            similarity(got.double(), torch.stack([means[label] for label in labels.tolist()]))
            for got, labels in zip(images.split(case.max_batch), targets.split(case.max_batch))
        ]
        return mean_of(torch.cat(values), targets, ctx, least=-1.0)
