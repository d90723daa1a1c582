"""An output-time defense that rounds the released probabilities; for tests."""

from dataclasses import dataclass

from torch import Tensor, nn

from mibench.defense import Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context


class _Rounded(nn.Module):
    def __init__(self, net: Classifier, share: float) -> None:
        super().__init__()
        self.inner = Released(net)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        released: Tensor = self.inner(x)
        return (1 - self.share) * released + self.share / released.shape[1]


@dataclass(frozen=True, kw_only=True)
class ToyRounded(Defense):
    """Probabilities mixed with the uniform distribution."""

    name = "toy_rounded"
    acts = "output"
    card = Card(title="Toy: flattened scores")
    share: float = 0.5

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with flattened scores."""
        return _Rounded(net, self.share)
