"""Claims of the paper on LPA and LFP (IEEE TIFS 2025), of which no number could be read."""

from __future__ import annotations

from mibench.reproduce.layout import NONE, Claim, Column, Layout, Measure

NO_DEFENSE = Column(heading="none", defense=NONE)
_LPA = Column(heading="LPA", defense="lpa")
_VAE = Column(heading="LPA (generator)", defense="lpa_vae")
_LFP = Column(heading="LFP", defense="lfp")
_NOISE = Column(heading="noise of its size", defense="random_noise")
_AD_MI = Column(heading="Ad-mi", defense="ad_mi")

INSTANCES = Layout(
    name="lpa",
    title="Images behind released vectors that are poisoned",
    citation="LPA and LFP, IEEE TIFS 2025, arXiv:2412.07575",
    suite="instances",
    attacks={"AMI": "ami"},
    columns=(NO_DEFENSE, _NOISE, _AD_MI, _LPA, _VAE, _LFP),
    measures=(
        Measure(printed="accuracy", heading="MC(all)", metric="mc_all"),
        Measure(printed="MSE", heading="MSE", metric="mse", percent=False),
        Measure(printed="PSNR", heading="PSNR (dB)", metric="psnr", percent=False),
        Measure(printed="SSIM", heading="SSIM", metric="ssim", percent=False),
    ),
    notes=("No number of this paper could be read, so its claims alone are tested.",),
)
LAYOUTS = (INSTANCES,)
_KEPT = 0.01  # "labels kept": one point is what a thousand test images can tell from none


def claims(layout: Layout) -> list[Claim]:
    """What the abstract says: poison makes reconstructions worse, more than noise does, and keeps labels."""
    attacks = tuple(layout.attacks.values())
    found = []
    for column, reference in (
        (_LPA, NO_DEFENSE), (_VAE, NO_DEFENSE), (_LFP, NO_DEFENSE), (_LPA, _NOISE), (_LPA, _AD_MI),
    ):  # fmt: skip
        beside = "" if reference is NO_DEFENSE else f" more than {reference.heading} does"
        found.append(
            Claim(
                id=f"error-{column.defense}-above-{reference.defense}".replace("_", "-"),
                sentence=f"{column.heading} raises the error of reconstructed images{beside}.",
                kind="raises error",
                columns=(column,),
                reference=reference,
                attacks=attacks,
                metric="mse",
            )
        )
    for column in (_LPA, _VAE, _LFP):
        found.append(
            Claim(
                id=f"keeps-{column.defense}".replace("_", "-"),
                sentence=f"{column.heading} keeps the accuracy, within one point.",
                kind="keeps accuracy",
                columns=(column,),
                reference=NO_DEFENSE,
                attacks=attacks,
                metric="mc_all",
                limit=_KEPT,
            )
        )
    return found
