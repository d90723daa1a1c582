"""Small edits that leave a person recognizable, and the attack accuracy that survives them."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import dequantize, quantize
from mibench.metric import Case, Estimate

from ._second import first_places, share

Edit = Callable[[Tensor], Tensor]


def surviving(case: Case, *edits: Edit) -> Estimate | None:
    """Share of protected labels' reconstructions whose success survives each of the edits by itself.

    The judge gives an image to the label as it is, and again after every single edit; interval as for `aa`.
    """
    hits = first_places(case, case.logits)
    for edit in edits:
        hits = hits & first_places(case, case.judge_logits(edit(case.got.images)))
    return share(case, hits)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Images x (N, C, H, W) under a Gaussian blur; sigma as a share of the height, borders replicated."""
    pixels = sigma * x.shape[2]
    reach = max(1, math.ceil(3 * pixels))  # beyond three standard deviations lie 0.3 % of the weight
    place = torch.arange(-reach, reach + 1, dtype=x.dtype)
    weights = torch.exp(-place.square() / (2 * pixels**2))
    weights = weights / weights.sum()
    flat = F.pad(x.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(flat, weights[None, None, None]), weights[None, None, :, None]).view_as(x)


def cropped(x: Tensor, keep: float) -> Tensor:
    """The middle of images x (N, C, H, W), `keep` of each side, enlarged bilinearly to the old size."""
    height, width = x.shape[2:]
    scale = torch.tensor([[[keep, 0.0, 0.0], [0.0, keep, 0.0]]], dtype=x.dtype).expand(len(x), 2, 3)
    grid = F.affine_grid(scale, [len(x), x.shape[1], height, width], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def recompressed(x: Tensor, quality: int) -> Tensor:
    """Images x (N, C, H, W) after JPEG at a quality of 1 to 100, with Pillow's other settings."""
    out = []
    for pixels in quantize(x).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(
            file, format="JPEG", quality=quality
        )
        read = torch.from_numpy(np.array(Image.open(file))).view(pixels.shape)
        out.append(dequantize(read.permute(2, 0, 1)))
    return torch.stack(out) if out else x
