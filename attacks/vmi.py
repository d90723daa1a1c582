"""VMI: one variational distribution over latents for each label, kept near the prior by a divergence.

Recognition and diversity are weighed as in variational inference: draws of the distribution should be taken
for the label, and the distribution should stay close to the generator's own. It is a Gaussian or a
normalizing flow, over one latent for each layer of a style generator or over one for all of them.

Source: Wang et al., NeurIPS 2021 (arXiv:2201.10787), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import StylePrior
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.nets.flows import Coupling, CouplingFlow
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.stylegan import StyleChoice
from mibench.victim import WhiteBoxVictim

from ._distributions import Family, Flow, Gaussian, Layered, Recovery


@dataclass(frozen=True, kw_only=True)
class Vmi(Attack[WhiteBoxVictim]):
    """Variational model inversion.

    Args:
        prior: the style generator and its training, or a ready one (docs/weights.md).
        family: "flow", the authors' choice for style generators, or "gaussian", with independent coordinates.
        layerwise: one latent and one distribution for each layer of the generator, as the authors take; else
            one latent for all of them.
        flow_steps: steps of each level of a flow; the authors take 10.
        flow_levels: levels of a flow; the authors take 3.
        flow_hidden: width of the hidden layers of a flow's couplings; the authors take 100.
        coupling: "additive", the authors' choice, or "affine".
        log_var: start of a Gaussian's log sigma^2; 0 is the prior's.
        search: learning of the distributions; the authors take 31 epochs of 157 steps of SGD with momentum.
        samples: draws for each label in each step; the authors take 64.
        kl_weight: weight of the divergence from the prior, averaged over layers, >= 0; the authors take 1e-3.
        loss: identity loss; the authors take cross-entropy.
        is_bounded: clamp the styles of a draw to the prior's P-space box, as Mirror does; the authors do not.
        best_of: draws for each reconstruction, of which the largest target logit is kept; the authors take
            1, which is no choice at all.
    """

    name = "vmi"
    access = WhiteBoxVictim
    card = Card(
        title="Variational Model Inversion Attacks",
        paper="Wang et al., NeurIPS 2021, arXiv:2201.10787",
        year=2021,
        code="https://github.com/wangkua1/vmi",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "distributions are computed in single precision; the authors take double for the flows",
            "flows have no normalization inside their couplings, and levels only leave coordinates alone",
            "the divergence of a Gaussian is exact, and that of a flow is an average over draws",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {
            "latent_dim": 8,
            "w_dim": 8,
            "width": 4,
            "critic_width": 4,
            "steps": 8,
            "batch": 8,
            "p_samples": 64,
        },
        "flow_steps": 2,
        "flow_levels": 1,
        "flow_hidden": 8,
        "search": {"steps": 12, "lr": 0.05, "keep": "last"},
        "samples": 4,
    }

    prior: StyleChoice = field(default_factory=StylePrior)
    family: Literal["flow", "gaussian"] = "flow"
    layerwise: bool = True
    flow_steps: int = 10
    flow_levels: int = 3
    flow_hidden: int = 100
    coupling: Coupling = "additive"
    log_var: float = 0.0
    search: Search = field(
        default_factory=lambda: Search(steps=4_867, lr=1e-4, optimizer="momentum", keep="last")
    )
    samples: int = 64
    kl_weight: float = 1e-3
    loss: IdentityLoss = "ce"
    is_bounded: bool = False
    best_of: int = 1

    def __post_init__(self) -> None:
        for name in ("flow_steps", "flow_levels", "flow_hidden", "samples", "best_of"):
            if getattr(self, name) < 1:
                raise ValueError(f"vmi: {name} must be >= 1, got {getattr(self, name)}.")
        if not self.kl_weight >= 0:
            raise ValueError(f"vmi: kl_weight must be >= 0, got {self.kl_weight}.")
        if self.family == "flow" and self.prior.latent_dim >> (self.flow_levels - 1) < 2:
            raise ValueError(
                f"vmi: {self.flow_levels} levels of a flow leave fewer than two of {self.prior.latent_dim} "
                "coordinates. Lower flow_levels or raise prior.latent_dim."
            )

    def prior_spec(self) -> StyleChoice:
        """The style generator."""
        return self.prior

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. Repeats of a label are draws from that label's one distribution."""
        space = self.prior.load(prior, victim.shape, ctx)
        layers = space.num_ws if self.layerwise else 1

        def decode(latents: Tensor) -> Tensor:
            z = latents.unflatten(1, (layers, -1)) if self.layerwise else latents
            return space.decode_z(z, is_bounded=self.is_bounded)

        def loss(images: Tensor, labels: Tensor, divergence: Tensor) -> Tensor:
            identity = identity_loss(victim.logits(images), labels, self.loss)
            return identity + self.kl_weight * divergence

        recovery = Recovery(
            victim=victim,
            family=Layered(self._family(ctx), layers),
            decode=decode,
            loss=loss,
            search=self.search,
            samples=self.samples,
            best_of=self.best_of,
        )
        return recovery.invert(targets, ctx)

    def _family(self, ctx: Context) -> Family:
        """The distributions over one latent."""
        dim = self.prior.latent_dim
        if self.family == "gaussian":
            return Gaussian(dim, log_var=self.log_var)
        flow = CouplingFlow(
            dim,
            steps=self.flow_steps,
            levels=self.flow_levels,
            hidden=self.flow_hidden,
            coupling=self.coupling,
            generator=ctx.generator("flow"),
        )
        return Flow(flow)
