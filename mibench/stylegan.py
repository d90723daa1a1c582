"""A ready generator as a prior: StyleGAN2 with weights from a user's file, and its choice in a suite.

The attacks of Mirror and PPA were published with generators of NVIDIA's, trained on FFHQ by others; here they
are taken as they are: nothing is trained, and the public images of the suite teach nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

import torch
from pydantic import BeforeValidator, Discriminator, Tag
from torch import Tensor, nn

from mibench.errors import PluginError, WeightsError
from mibench.gan import StylePrior
from mibench.nets.styled import from_p
from mibench.nets.stylegan2 import Framing, StyleGan2Generator
from mibench.nets.stylegan2_names import generator_of, shape_of_own
from mibench.plugin import Context
from mibench.prior import Prior, PriorSpec, Shape
from mibench.spaces import WSpace
from mibench.weights import is_digest, read_checkpoint, weights_digest

_TABLES = ("g_ema", "G_ema", "state_dict")  # of rosinality's files; of what users export
_MEAN_DRAWS = 10_000  # of z, for the mean w of a file that has none; StyleGAN's authors take as many
_G = "g."  # begins the names of the generator's tensors in a prior


@dataclass(frozen=True, kw_only=True)
class StyleGan2Prior(PriorSpec):
    """A trained StyleGAN2 generator from a file; trains nothing.

    Args:
        weights: the file, with the tensors of NVIDIA's stylegan2-ada-pytorch or rosinality's
            stylegan2-pytorch; a relative path starts at the suite file's folder.
        latent_dim: length of z that the file must have.
        crop: share of height and width that is kept from the middle of its pictures, in (0, 1], before they
            are resized to the suite's images; 0.78125 is 800 of FFHQ's 1,024 pixels (Struppek et al., ICML
            2022, their CelebA and FaceScrub settings). Take 1 where the suite's faces are cut like the
            generator's.
        noise: "const" adds the noise maps of the file, "none" leaves them out.
        p_samples: draws of z from which the P-space box is estimated (Mirror: 100,000).
        kappa: half-width of the P-space box in standard deviations (Mirror: 1).
    """

    kind: ClassVar[str] = "stylegan2"
    is_ready: ClassVar[bool] = True
    has_critic: ClassVar[bool] = False
    search_fields: ClassVar[frozenset[str]] = frozenset({"crop", "noise", "p_samples", "kappa"})
    weights: str
    latent_dim: int = 512
    crop: float = 800 / 1024
    noise: Literal["const", "none"] = "const"
    p_samples: int = 10_000
    kappa: float = 1.0

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("prior stylegan2: weights is empty. Give the path of a file.")
        if not 0 < self.crop <= 1:
            raise ValueError(f"prior stylegan2: crop must lie in (0, 1], got {self.crop}.")
        if not self.kappa > 0:
            raise ValueError(f"prior stylegan2: kappa must be > 0, got {self.kappa}.")
        for name in ("latent_dim", "p_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"prior stylegan2: {name} must be >= 1, got {getattr(self, name)}.")

    def as_table(self) -> dict[str, Any]:
        """See PriorSpec.as_table; the kind stands first."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def as_key(self) -> dict[str, Any]:
        """See PriorSpec.as_key; the digest stands for the path.

        Raises:
            WeightsError: the file cannot be read.
        """
        return {**self.as_table(), "weights": self.digest()}

    def training_params(self) -> dict[str, Any]:
        """See PriorSpec.training_params.

        Raises:
            WeightsError: the file cannot be read, or is no such generator.
        """
        digest = self.digest()
        if not is_digest(self.weights):
            _check(self.weights, digest, self.latent_dim)
        return {**super().training_params(), "weights": digest}

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal; of a spec read back from a task, what stands in its place."""
        return self.weights if is_digest(self.weights) else weights_digest(self.weights)

    def beside(self, folder: Path) -> Self:
        """See PriorSpec.beside."""
        return dataclasses.replace(self, weights=str(folder / Path(self.weights).expanduser()))

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """See PriorSpec.fit: the file's tensors, whatever the images are, as float32.

        Raises:
            WeightsError: the file cannot be read, or is no such generator.
        """
        net = _read(self.weights, self.digest(), self.latent_dim)
        return {f"{_G}{name}": value.detach() for name, value in net.state_dict().items()}

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> WSpace:
        """See PriorSpec.load: the space of w, bounded by the P-space box; it knows no realism."""
        state = {name.removeprefix(_G): v.float() for name, v in prior.items() if name.startswith(_G)}
        channels, size, _ = shape
        framing = Framing(crop=self.crop, size=size, channels=channels)
        with torch.device("meta"):
            g = StyleGan2Generator(shape_of_own(state), framing=framing, noise=self.noise)
        g.load_state_dict(state, assign=True)
        mean, std = g.p_stats(self.p_samples, torch.Generator().manual_seed(0))
        low, high = from_p(mean - self.kappa * std), from_p(mean + self.kappa * std)
        return WSpace(g.to(ctx.device), _NoCritic(), low.to(ctx.device), high.to(ctx.device))


class _NoCritic(nn.Module):
    """Stands where a space has its critic, and refuses to judge."""

    def forward(self, _images: Tensor) -> NoReturn:
        raise PluginError(_LACK)


_LACK = (
    "prior stylegan2: a ready generator comes without a critic, so nothing can say how natural an image is. "
    "Set the weight of the critic to 0, or train a prior."
)


@torch.no_grad()
def _read(path: str, digest: str, latent_dim: int) -> StyleGan2Generator:
    """The generator of a file; a mean w that the file lacks is estimated."""
    where = f"weights {path}"
    tensors = read_checkpoint(path, digest=digest, tables=_TABLES, beside=("latent_avg",))
    net = generator_of(tensors, where=where)
    if net.latent_dim != latent_dim:
        raise WeightsError(
            f"{where}: the generator's z has {net.latent_dim} numbers, prior.latent_dim asks for "
            f"{latent_dim}. Set prior.latent_dim = {net.latent_dim}."
        )
    if not bool(net.w_avg.any()):
        z = torch.randn(_MEAN_DRAWS, latent_dim, generator=torch.Generator().manual_seed(0))
        net.w_avg.copy_(net.mapping(z).mean(0))
    return net


@lru_cache(maxsize=8)
def _check(path: str, digest: str, latent_dim: int) -> None:
    """Raise WeightsError while a suite is planned, and not after its victims have been trained."""
    _read(path, digest, latent_dim)


def check_critic(where: str, prior: PriorSpec, **weights: float) -> None:
    """Raise ValueError where a term by the prior's critic is weighed and the prior has none."""
    for name, weight in weights.items():
        if weight > 0 and not prior.has_critic:
            raise ValueError(
                f"{where}: {name} is {weight}, and prior '{prior.kind}' has no critic. Set it to 0."
            )


_KINDS: dict[str, type[PriorSpec]] = {one.kind: one for one in (StylePrior, StyleGan2Prior)}


def _known(table: Any) -> Any:  # noqa: ANN401 - whatever stands in a suite
    if isinstance(table, dict) and table.get("kind", StylePrior.kind) not in list(_KINDS):
        raise ValueError(f"prior: unknown kind '{table['kind']}'. Its kinds: {', '.join(_KINDS)}.")
    return table


def _class_name(table: Any) -> str:  # noqa: ANN401
    return _KINDS[table.get("kind", StylePrior.kind)].__name__ if isinstance(table, dict) else "StylePrior"


def _without_kind(table: Any) -> Any:  # noqa: ANN401
    if not isinstance(table, dict):
        return table
    return {name: value for name, value in table.items() if name != "kind"}


# `prior = { kind = "stylegan2", weights = "FILE" }`; without a kind it is the small generator of ours
StyleChoice = Annotated[
    Annotated[StylePrior, BeforeValidator(_without_kind), Tag("StylePrior")]
    | Annotated[StyleGan2Prior, BeforeValidator(_without_kind), Tag("StyleGan2Prior")],
    Discriminator(_class_name),
    BeforeValidator(_known),
]
