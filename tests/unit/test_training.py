"""The one training loop: it learns, repeats itself, takes foreign parts, and never diverges in silence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.building import build_dataclass
from mibench.data.split import Labeled
from mibench.errors import TrainingError
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.training import Recipe, accuracy, augment, check_finite, fit, make_optimizer

SPEC = NetSpec(name="softmax_regression", channels=1, size=8, num_classes=3)
PLAIN = Recipe(epochs=4, batch=6, lr=0.5, flip=False, shift=0, weight_decay=0.0, schedule="constant")


def net() -> Classifier:
    return build(SPEC, torch.Generator().manual_seed(0))


def data(count: int = 30) -> Labeled:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 3
    patterns = torch.rand(3, 1, 8, 8, generator=generator)
    return Labeled(0.8 * patterns[labels] + 0.2 * torch.rand(count, 1, 8, 8, generator=generator), labels)


def weights(trained: Classifier) -> Tensor:
    return torch.cat([p.flatten() for p in trained.parameters()])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_it_learns_and_returns_the_net_frozen(optimizer: str) -> None:
    start = net()
    recipe = build_dataclass(
        Recipe, {"epochs": 60, "batch": 10, "optimizer": optimizer, "flip": False, "shift": 0}, where="recipe"
    )
    got = fit(start, data(), Context(), recipe=recipe)
    assert got is start
    assert accuracy(got, data()) > 0.9
    assert not got.training
    assert not any(p.requires_grad for p in got.parameters())


def test_the_same_seed_gives_the_same_bits_and_the_global_state_stays() -> None:
    recipe = Recipe(epochs=2, batch=8, jitter=0.2)
    before = torch.get_rng_state()
    nets = [weights(fit(net(), data(), Context(seed=seed), recipe=recipe)) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_full_batches_are_plain_gradient_descent() -> None:
    recipe = Recipe(
        epochs=1, batch=30, lr=0.5, momentum=0.0, weight_decay=0.0, flip=False, shift=0, schedule="constant"
    )
    expected, part = net(), data()
    F.cross_entropy(expected(part.images), part.labels).backward()
    with torch.no_grad():
        for parameter in expected.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.5 * parameter.grad)
    got = fit(net(), part, Context(), recipe=recipe)
    assert torch.allclose(weights(got), weights(expected).detach(), atol=1e-6)


def test_a_foreign_source_of_batches_and_number_of_steps_are_taken() -> None:
    taken: list[int] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(100):
            taken.append(step)
            yield data().images[:4], data().labels[:4]

    fit(net(), data(), Context(), recipe=PLAIN, batches=batches(), steps=7)
    assert taken == list(range(7))


def test_a_foreign_optimizer_is_the_one_that_steps() -> None:
    start = net()
    frozen = torch.optim.SGD([next(iter(start.parameters()))], lr=0.0)
    got = fit(start, data(), Context(), recipe=PLAIN, optimizer=frozen)
    assert torch.equal(weights(got), weights(net()).detach())


def test_a_foreign_loss_is_the_one_that_falls() -> None:
    def to_last(trained: Classifier, x: Tensor, _y: Tensor) -> Tensor:
        return F.cross_entropy(trained(x), torch.full((len(x),), 2))

    got = fit(net(), data(), Context(), recipe=PLAIN, loss=to_last)
    assert bool((got(data().images).argmax(1) == 2).all())


def test_label_smoothing_is_that_of_the_recipe() -> None:
    part, start = data(), net()
    expected = F.cross_entropy(start(part.images), part.labels, label_smoothing=0.3)
    assert torch.equal(Recipe(label_smoothing=0.3).loss(start, part.images, part.labels), expected)


def rates(schedule: str, steps: int) -> list[float]:
    """Learning rates of all steps, read from an optimizer that is asked to step."""
    start = net()
    optimizer = make_optimizer(start, Recipe(lr=2.0))
    seen: list[float] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    recipe = build_dataclass(Recipe, {"schedule": schedule, "flip": False}, where="recipe")
    fit(start, data(), Context(), recipe=recipe, optimizer=optimizer, steps=steps)
    return seen


def test_the_schedules_warm_up_and_then_stay_or_fall_to_zero() -> None:
    constant, cosine = rates("constant", 100), rates("cosine", 100)
    assert constant[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert constant[5:] == [2.0] * 95
    assert cosine[:5] == constant[:5]
    assert cosine[5] == pytest.approx(2.0)
    assert cosine[52] == pytest.approx(1.0, abs=0.05)
    assert 0 < cosine[-1] < 0.01
    assert all(later < sooner for sooner, later in pairwise(cosine[5:]))


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    def broken(trained: Classifier, x: Tensor, _y: Tensor) -> Tensor:
        value: Tensor = trained(x).sum() * torch.nan
        return value

    with pytest.raises(TrainingError, match="the loss became NaN or infinite"):
        fit(net(), data(), Context(), recipe=PLAIN, loss=broken)


def test_a_diverged_loss_reads_the_same_at_any_step(caplog: pytest.LogCaptureFixture) -> None:
    messages = set()
    for value, step in ((math.nan, 3), (math.inf, 17)):
        with pytest.raises(TrainingError) as caught:
            check_finite(value, step, "training")
        messages.add(str(caught.value))
    assert messages == {"training: the loss became NaN or infinite. Lower the learning rate."}
    assert "step 17" in caplog.text


def test_weights_that_are_not_finite_are_an_error() -> None:
    def last_step_explodes(trained: Classifier, x: Tensor, _y: Tensor) -> Tensor:
        value: Tensor = 1e30 * trained(x).sum()
        return value

    recipe = Recipe(epochs=1, batch=30, lr=1e30, flip=False, shift=0)
    with pytest.raises(TrainingError, match="weights became NaN or infinite"):
        fit(net(), data(), Context(), recipe=recipe, loss=last_step_explodes)


def test_progress_is_reported_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    ctx = Context(on_progress=lambda done, total, _values: seen.append((done, total)))
    fit(net(), data(), ctx, recipe=PLAIN)
    assert seen[-1] == (20, 20)


def test_accuracy_does_not_depend_on_the_chunks() -> None:
    trained = fit(net(), data(), Context(), recipe=PLAIN)
    wrong = Labeled(data().images, (data().labels + (torch.arange(30) < 12)) % 3)
    assert accuracy(trained, data()) == 1.0
    assert accuracy(trained, wrong) == accuracy(trained, wrong, max_batch=7) == pytest.approx(0.6)


def test_each_image_is_augmented_by_itself() -> None:
    """Equal images come out different: the numbers are drawn per image and not per batch."""
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).repeat(64, 1, 1, 1)
    for recipe, kinds in (
        (Recipe(flip=True, shift=0), 2),
        (Recipe(flip=False, shift=1), 9),
        (Recipe(flip=False, shift=0, jitter=0.3), 64),
        (Recipe(flip=False, shift=0), 1),
    ):
        out = augment(images, recipe, torch.Generator().manual_seed(1))
        assert len(out.flatten(1).unique(dim=0)) == kinds
        assert out.shape == images.shape
        assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_a_mirrored_image_is_mirrored_left_to_right() -> None:
    images = torch.arange(4.0).repeat(16, 1, 1, 1) / 4
    out = augment(images, Recipe(flip=True, shift=0), torch.Generator().manual_seed(0))
    mirrored = (out != images).flatten(1).any(1)
    assert 0 < int(mirrored.sum()) < 16
    assert torch.equal(out[mirrored], images[mirrored].flip(3))


def by_index(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W), float32, augmented as plainly as it can be written."""
    count, _, height, width = x.shape
    if recipe.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if recipe.shift > 0:
        s = recipe.shift
        moves = torch.randint(0, 2 * s + 1, (2, count, 1), generator=generator)
        padded = F.pad(x, (s, s, s, s), mode="replicate")
        rows, columns = torch.arange(height) + moves[0], torch.arange(width) + moves[1]
        image, channel = torch.arange(count)[:, None, None, None], torch.arange(x.shape[1])[:, None, None]
        x = padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    if recipe.jitter > 0:
        draws = (torch.rand(2, count, 1, 1, 1, generator=generator) * 2 - 1) * recipe.jitter
        mean = x.mean((1, 2, 3), keepdim=True)
        x = ((x - mean) * (1 + draws[0]) + mean * (1 + draws[1])).clamp(0, 1)
    return x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_bytes_are_augmented_to_the_bits_of_floats(
    channels: int, flip: bool, shift: int, jitter: float
) -> None:
    """Also to the order in memory, which sums and convolutions follow."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, channels, 9, 8), generator=generator, dtype=torch.uint8)
    recipe, images = Recipe(flip=flip, shift=shift, jitter=jitter), pixels.float() / 255
    draws = [torch.Generator().manual_seed(1) for _ in range(3)]
    expected = by_index(images, recipe, draws[0])
    for x, own in zip((pixels, images), draws[1:]):
        got = augment(x, recipe, own)
        assert torch.equal(got, expected)
        assert got.stride() == expected.stride()
        assert torch.equal(own.get_state(), draws[0].get_state())


def test_what_is_augmented_stays_as_it_was() -> None:
    images = data().images
    before = images.clone()
    augment(images, Recipe(jitter=0.3), torch.Generator().manual_seed(0))
    assert torch.equal(images, before)


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_bytes_and_floats_train_the_same_weights(jitter: float) -> None:
    recipe, floats = Recipe(epochs=3, batch=7, jitter=jitter), data()
    in_bytes = Labeled(floats.stored, floats.labels)
    rounded = Labeled(in_bytes.images, floats.labels)
    trained = [fit(net(), part, Context(seed=1), recipe=recipe) for part in (in_bytes, rounded)]
    assert torch.equal(weights(trained[0]), weights(trained[1]))
    assert accuracy(trained[0], in_bytes, max_batch=7) == accuracy(trained[1], rounded)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"momentum": 1.0},
        {"weight_decay": -1e-4},
        {"shift": -1},
        {"jitter": -0.1},
        {"label_smoothing": 1.0},
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, float]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"recipe: {field} must"):
        build_dataclass(Recipe, wrong, where="recipe")


def test_steps_count_the_last_part_of_an_epoch() -> None:
    assert Recipe(epochs=3, batch=64).steps(130) == 9


class Dropping(Classifier):
    """A linear net behind dropout."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="dropping", channels=1, size=4, num_classes=2))
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(16, 2)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.dropout(x.flatten(1)),)


def test_dropout_draws_from_the_seed_and_leaves_the_global_state() -> None:
    """Also where something else has drawn from the global generator in between."""
    images = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data, start = Labeled(images, torch.arange(8) % 2), Dropping().state_dict()
    weights = []
    for seed in (1, 1, 2):
        net = Dropping()
        net.load_state_dict(start)
        torch.rand(3)
        before = torch.get_rng_state()
        recipe = Recipe(epochs=3, batch=8, flip=False, shift=0)  # the order of a full batch moves no mean
        weights.append(fit(net, data, Context(seed=seed), recipe=recipe).state_dict()["head.weight"])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-4)
