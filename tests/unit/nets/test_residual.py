"""Residual blocks: what their scale does to a net, and which nets have them in the last stage."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.nets import CLASSIFIERS, Classifier, NetSpec, Residual, build, last_skips

WIDTHS = {"inception_resnet_v1": 0, "softmax_regression": 0}
LAST = {"inception_resnet_v1": 6, "ir50": 2, "small_convnext": 1, "small_resnet14": 1}
SMALL = ["small_convnext", "small_resnet14"]


def make(name: str) -> Classifier:
    spec = NetSpec(name=name, width=WIDTHS.get(name, 4), num_classes=3)
    return build(spec, torch.Generator().manual_seed(0)).eval()


def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_net_tells_whether_its_last_stage_has_identity_shortcuts(name: str) -> None:
    with torch.device("meta"):
        net = CLASSIFIERS[name](NetSpec(name=name, width=WIDTHS.get(name, 4), num_classes=3))
    assert len(last_skips(net)) == LAST.get(name, 0)
    assert net.has_last_skip == (name in LAST)


@pytest.mark.parametrize(("name", "wanted"), [("small_resnet14", [1, 0, 1, 0, 1]), ("ir50", None)])
def test_projections_and_strides_are_no_identity(name: str, wanted: list[int] | None) -> None:
    """Of the first blocks of stages only that of small_resnet14's first stage keeps the shape."""
    blocks: list[Any] = [block for block in make(name).modules() if isinstance(block, Residual)]
    identities = [block.has_identity for block in blocks]
    if wanted is None:  # IR-50: 3, 4, 14 and 3 blocks, of which the first of each halves the map
        assert identities == [i > 0 for depth in (3, 4, 14, 3) for i in range(depth)]
    else:
        assert [int(identity) for identity in identities] == [1, *wanted]


@pytest.mark.parametrize("name", SMALL)
def test_a_block_adds_its_scaled_input(name: str) -> None:
    net = make(name)
    (block,) = last_skips(net)
    met: list[tuple[Tensor, Tensor]] = []
    block.register_forward_hook(lambda _block, args, out: met.append((args[0], out)))
    for k in (1.0, 0.2, 0.0):
        block.skip_scale = k
        with torch.no_grad():
            net(images())
    z, whole = met[0]
    assert all(torch.equal(seen, z) for seen, _ in met)
    assert torch.allclose(met[1][1], whole - 0.8 * z, atol=1e-6)
    assert torch.allclose(met[2][1], whole - z, atol=1e-6)


def test_the_scale_is_no_part_of_a_state_and_survives_copies() -> None:
    net = make("small_resnet14")
    keys = list(net.state_dict())
    last_skips(net)[0].skip_scale = 0.5
    assert list(net.state_dict()) == keys
    assert last_skips(copy.deepcopy(net))[0].skip_scale == 0.5
    assert last_skips(make("small_resnet14"))[0].skip_scale == 1


def test_the_deeper_net_holds_the_smaller_one() -> None:
    """Without the second blocks it is small_resnet, so the two differ in depth alone."""
    deep: Any
    shallow: Any
    deep, shallow = make("small_resnet14"), make("small_resnet")
    assert [len(stage) for stage in deep.stages] == [2, 2, 2]
    deep.stages = nn.ModuleList(stage[0] for stage in deep.stages)
    assert list(deep.state_dict()) == list(shallow.state_dict())
    shallow.load_state_dict(deep.state_dict())
    assert torch.equal(deep(images()), shallow(images()))


def test_facenets_last_stage_computes_what_the_package_does() -> None:
    facenet = pytest.importorskip("facenet_pytorch.models.inception_resnet_v1")
    blocks: list[Any] = list(last_skips(make("inception_resnet_v1")))
    assert [block.ends_active for block in blocks] == [True] * 5 + [False]
    z = torch.rand(1, 1792, 2, 2, generator=torch.Generator().manual_seed(2))
    for block in blocks[-2:]:
        theirs = facenet.Block8(scale=block.scale, noReLU=not block.ends_active).eval()
        theirs.load_state_dict(block.state_dict())
        theirs.to(memory_format=torch.channels_last)
        with torch.no_grad():
            assert torch.equal(block(z), theirs(z))
