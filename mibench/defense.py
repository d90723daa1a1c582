"""The defense abstraction: reshape, train or fine-tune the classifier, or change what it releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.data.split import Labeled
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Context, Plugin, Settings
from mibench.prior import PriorSpec
from mibench.training import Recipe, fit

State = dict[str, Tensor]
Acts = Literal[
    "nothing",
    "training",
    "fine-tuning",
    "output",
    # compositions, see `mibench.compose`
    "training, fine-tuning",
    "training, output",
    "fine-tuning, output",
    "training, fine-tuning, output",
]


@dataclass(frozen=True)
class DefenderView:
    """All that a defender may see. Nothing here comes from the attacker.

    Args:
        private_train: the private training images.
        public: the defender's own half of the public images, labeled, other people than the attacker's.
        targets: (T,) int64, the labels to protect.
        recipe: how the undefended victim is trained on this suite.
        prior_spec: architecture of `prior`: the attack's where the defense knows it, else the substitute.
        prior: that architecture trained on the defender's public images; empty if the defense asks for none.
        public_net: a classifier of the defender's public people; None if the defense asks for none.
    """

    private_train: Labeled
    public: Labeled
    targets: Tensor
    recipe: Recipe
    prior_spec: PriorSpec | None = None
    prior: Mapping[str, Tensor] = field(default_factory=dict)
    public_net: Classifier | None = None


@dataclass(frozen=True, kw_only=True)
class Defense(Plugin):
    """A defense; it overrides one step, and the plugin that overrides none is the undefended baseline.

    Class attributes tell the plan what to prepare:
    `acts`: where it acts. `knows`: {"attack_prior"} if the defender knows the attack's prior architecture;
    then one protected model is trained per such architecture. `per_target`: one protected model per
    protected label. `starts_from`: an untrained net, or the trained undefended victim. `needs`: a subset of
    {"prior", "public_net"}, trained on the defender's public half and shared by all defenses. `neutral`:
    fields that switch the defense off, which a check then compares with no defense; None if none do.
    `weak_to`: what adaptive attackers use against it, see `mibench.adaptive`.
    `strength`: the one field that makes it stronger or weaker, empty if it has none. `strength_levels`: the
    values of that field that a sweep takes, from weak to strong, over the range that is published.
    `keeps_label`: an output step that never changes which label leads, whatever its options and the scores.
    """

    acts: ClassVar[Acts] = "nothing"
    knows: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset()
    per_target: ClassVar[bool] = False
    starts_from: ClassVar[Literal["scratch", "trained"]] = "scratch"
    aliases: ClassVar[tuple[str, ...]] = ()
    neutral: ClassVar[Settings | None] = None
    weak_to: ClassVar[frozenset[Weakness]] = frozenset()
    strength: ClassVar[str] = ""
    strength_levels: ClassVar[tuple[object, ...]] = ()
    keeps_label: ClassVar[bool] = False

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """`weak_to` with these options; overridden where an option moves it, as noise drawn anew does."""
        return self.weak_to

    def misfit(self, net: NetSpec) -> str:
        """Why it cannot act on a net, and what to do, in one or two sentences; empty where it can."""
        return ""

    def substitute_prior(self) -> PriorSpec | None:
        """The defender's own prior, for `needs` = {"prior"}, where the attack's is unknown or absent."""
        return None

    def trains_on(self, spec: PriorSpec) -> bool:
        """Whether it goes on training a prior of this spec, which may then come without any step."""
        return False

    def prepare(self, net: Classifier) -> Classifier:
        """The net reshaped before training; also called to rebuild a stored state, so it is deterministic."""
        return net

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The trained net, in eval mode. `net` is untrained or the trained victim, see `starts_from`.

        The default trains it on the private images with the suite's recipe.
        """
        return fit(net, view.private_train, ctx, recipe=view.recipe)

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Tensors that the output step needs, learned by the defender; the default needs none."""
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """Module: images (N, C, H, W) -> released probabilities (N, K), rows on the simplex.

        Rebuilt from `state` without training. The default releases softmax(net(x)). An output-time
        defense must be deterministic for each image and let gradients pass to `x` where its source does.
        """
        return Released(net)


class Released(nn.Module):
    """The plain release: softmax of the logits."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images x (N, C, H, W), float32."""
        logits: Tensor = self.net(x)
        return logits.softmax(1)
