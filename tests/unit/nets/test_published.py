"""Published weights in our nets give what the original package's net gives for the same face."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torchvision
from facenet_pytorch import InceptionResnetV1 as Facenet
from facenet_pytorch import fixed_image_standardization
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from mibench.nets import CLASSIFIERS, Classifier, NetSpec, build, seeded
from mibench.starting import start_from


def net_of(name: str, *, size: int = 64, people: int = 3, channels: int = 3) -> Classifier:
    spec = NetSpec(name=name, size=size, num_classes=people, channels=channels)
    return build(spec, torch.Generator().manual_seed(1))


def faces(size: int = 64, channels: int = 3) -> Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(2))


def lived(net: nn.Module) -> nn.Module:
    """The net with statistics and affine parts of batch norms that are not those of a fresh net."""
    rng = torch.Generator().manual_seed(3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            for value, low in (
                (module.running_mean, -0.1),
                (module.running_var, 0.5),
                (module.weight.data, 0.5),
                (module.bias.data, -0.1),
            ):
                value.copy_(low + torch.rand(value.shape, generator=rng))
    return net.eval()


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_torchvisions_vgg_gives_the_same_maps(name: str) -> None:
    with seeded(torch.Generator().manual_seed(0)):
        theirs = lived(getattr(torchvision.models, name)(weights=None, num_classes=10))
    ours, x = net_of(name), faces()
    start_from(ours, theirs.state_dict(), use="features", where="weights a.pth")
    ours.eval()
    with torch.no_grad():
        features: Any = theirs.get_submodule("features")
        whole = features(normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        hidden = ours.scaled(x)
        for stage in ours.get_submodule("stages").children():
            hidden = stage(hidden)
    assert float(whole.std()) > 1e-3
    torch.testing.assert_close(hidden, whole, rtol=0, atol=1e-4 * float(whole.std()))


def test_facenet_pytorchs_net_gives_the_same_embedding() -> None:
    with seeded(torch.Generator().manual_seed(0)):
        theirs = lived(Facenet(pretrained=None, classify=True, num_classes=3))
    ours, x = net_of("inception_resnet_v1", size=96), faces(96)
    start_from(ours, theirs.state_dict(), use="start", where="weights a.pt")
    ours.eval()
    with torch.no_grad():
        logits = theirs(fixed_image_standardization(255 * x))
        torch.testing.assert_close(ours(x), logits, rtol=1e-4, atol=1e-4)
        embeds: Any = theirs
        embeds.classify = False
        points = theirs(fixed_image_standardization(255 * x))
        torch.testing.assert_close(nn.functional.normalize(ours.features(x)), points, rtol=1e-4, atol=1e-5)


class Unit(nn.Module):
    """A block of the reference IR-50."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


def reference_ir50() -> nn.Sequential:
    """IR-50 of ArcFace under face.evoLVe's names, for images of 112 px in [-1, 1]."""
    units, inputs = [], 64
    for outputs, depth in ((64, 3), (128, 4), (256, 14), (512, 3)):
        units += [Unit(inputs if i == 0 else outputs, outputs, 2 if i == 0 else 1) for i in range(depth)]
        inputs = outputs
    stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
    end = nn.Sequential(
        nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)
    )
    return nn.Sequential(OrderedDict(input_layer=stem, body=nn.Sequential(*units), output_layer=end))


def test_face_evolves_ir50_gives_the_same_feature() -> None:
    with seeded(torch.Generator().manual_seed(0)):
        theirs = lived(reference_ir50())
    ours, x = net_of("ir50", size=112), faces(112)[:1]
    start_from(ours, theirs.state_dict(), use="features", where="weights a.pth")
    ours.eval()
    with torch.no_grad():
        feature = theirs(2 * x - 1)
        assert float(feature.std()) > 1e-3
        torch.testing.assert_close(ours.features(x), feature, rtol=1e-4, atol=1e-4)
    assert ours.input_scale is None


def test_the_scale_of_images_is_part_of_the_state_and_of_no_other() -> None:
    theirs = torchvision.models.vgg16(weights=None, init_weights=False, num_classes=2)
    ours = net_of("vgg16")
    assert not [name for name in ours.state_dict() if name.startswith("input")]
    start_from(ours, theirs.state_dict(), use="features", where="weights a.pth")
    again = net_of("vgg16")
    again.load_state_dict(ours.state_dict())
    x = faces()
    torch.testing.assert_close(again.scaled(x), normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert not torch.equal(net_of("vgg16").scaled(x), again.scaled(x))


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_published_name_stands_for_one_tensor(name: str) -> None:
    net = net_of(name, size=32)
    published = net.published()
    if published is None:
        assert name not in {"vgg16", "vgg16_bn", "ir50", "inception_resnet_v1"}
        return
    own = list(net.state_dict())
    names = published.names(own)
    covered = sorted(names.values())
    assert covered == sorted(set(covered))
    lacking = {one.partition(".")[0] for one in set(own) - set(covered)}
    assert lacking <= {"head", "norm"}
