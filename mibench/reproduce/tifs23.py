"""Tables I to VI and Figure 2 of Gong et al., IEEE TIFS 2023: a GAN-based defense framework."""

from __future__ import annotations

from mibench.reported import papers
from mibench.reproduce import expected
from mibench.reproduce.layout import JUDGE_ACCURACY, NONE, Claim, Column, Layout, Measure

_CITATION = papers()["tifs23"].paper
_ATTACKS = {"DMI": "dmi", "Mirror": "mirror", "Privacy": "mi_face", "AMI": "ami"}
_MEASURES = (
    Measure(printed="MC_all", heading="MC(all)", metric="mc_all"),
    Measure(printed="MC_lt", heading="MC(l_t)", metric="mc_target"),
    Measure(printed="AA", heading="AA", metric="aa"),
    Measure(printed="FID", heading="FID", metric="mean_feature_distance", percent=False),
)
_FID = (
    "FID is the paper's own: the squared distance of mean features in its equation 13, our "
    "mean_feature_distance and never our fid. It has the scale of each judge's features."
)
_PEOPLE = "The paper attacks one person; each number of ours is a mean over several protected people."

NO_DEFENSE = Column(heading="none", defense=NONE, printed=("none", "original"))
_DP = Column(heading="DP", defense="dp_sgd", printed=("DP", "DP-SGD eps=8"))
_AD_MI = Column(heading="Ad-mi", defense="ad_mi", printed=("Ad-mi", "10 steps"), view="deployed")
_AD_MI_STRIPPED = Column(heading="Ad-mi (stripped, ours)", defense="ad_mi")
_GAN_D = Column(heading="GAN-D FL", defense="gan_d", printed=("GAN-D", "FL"))
_GAN_ID = Column(heading="GAN-ID FL", defense="gan_id", printed=("GAN-ID", "FL;WGAN"))
_RANDOM = Column(heading="random-fake", defense="random_fake", printed=("random-fake", ""))
_GAN_D_CE = Column(heading="GAN-D CE", defense="netguard", printed=("GAN-D", "CE"))
_GAN_ID_CE = Column(heading="GAN-ID CE", defense="gan_id_ce", printed=("GAN-ID", "CE;WGAN"))
_D_PRI = Column(heading="L_pri", defense="gan_d_pri", printed=("GAN-D", "L_pri"))
_D_PUB = Column(heading="L_pri + L_pub", defense="gan_d_pri_pub", printed=("GAN-D", "L_pri+L_pub"))
_ID_PRI = Column(heading="L_pri", defense="gan_id_pri", printed=("GAN-ID", "L_pri;WGAN"))
_ID_PUB = Column(heading="L_pri + L_pub", defense="gan_id_pri_pub", printed=("GAN-ID", "L_pri+L_pub;WGAN"))
_INFO = Column(heading="GAN-ID InfoGAN", defense="gan_id_infogan", printed=("GAN-ID", "FL;InfoGAN"))
_CGAN = Column(heading="GAN-ID CGAN", defense="gan_id_cgan", printed=("GAN-ID", "FL;CGAN"))
_WGAN = Column(heading="GAN-ID WGAN", defense="gan_id", printed=("GAN-ID", "FL;WGAN"))


def _table(number: int, title: str, columns: tuple[Column, ...], *notes: str) -> Layout:
    attacks = _ATTACKS if number != 5 else {name: _ATTACKS[name] for name in ("DMI", "Mirror")}
    return Layout(
        name=f"tifs23/table{number}",
        title=title,
        citation=_CITATION,
        suite="quick",
        attacks=attacks,
        columns=columns,
        measures=_MEASURES,
        paper="tifs23",
        tables=(str(number),),
        notes=(*notes, _PEOPLE, _FID),
    )


TABLE_1 = Layout(
    name="tifs23/table1",
    title="Accuracy of the victim and of the evaluation model",
    citation=_CITATION,
    suite="quick",
    attacks={"none": ""},
    columns=(
        Column(heading="victim", defense=NONE, printed=("none", "victim"), metric="mc_all"),
        Column(heading="evaluation", defense=NONE, printed=("none", "evaluation"), metric=JUDGE_ACCURACY),
    ),
    measures=(Measure(printed="MA", heading="MA", metric="mc_all"),),
    paper="tifs23",
    tables=("1",),
)
TABLE_2 = _table(
    2,
    "Defenses against four attacks",
    (NO_DEFENSE, _DP, _AD_MI, _GAN_D, _GAN_ID, _AD_MI_STRIPPED),
    "Ad-mi in the paper's protocol, where gradients pass through the defended output; the last column group "
    "is ours: the same attacks on the weights without that output step.",
)
TABLE_3 = _table(
    3,
    "Random fakes against fakes of a generator",
    (_RANDOM, _GAN_D_CE, _GAN_ID_CE, NO_DEFENSE),
    "The undefended column is ours in this table; its numbers stand in the paper's Table II.",
)
TABLE_4 = _table(
    4,
    "The loss of GAN-D, term by term",
    (_D_PRI, _D_PUB, _GAN_D_CE, _GAN_D, NO_DEFENSE),
    "The undefended column is ours in this table; its numbers stand in the paper's Table II.",
)
TABLE_5 = _table(
    5,
    "The loss of GAN-ID, term by term",
    (_ID_PRI, _ID_PUB, _GAN_ID_CE, _GAN_ID, NO_DEFENSE),
    "The undefended column is ours in this table; its numbers stand in the paper's Table II.",
)
TABLE_6 = _table(6, "Generators in place of the attacker's", (NO_DEFENSE, _INFO, _CGAN, _WGAN))
FIGURE_2 = Layout(
    name="tifs23/fig2",
    title="Reconstructions of each attack under each defense",
    citation=_CITATION,
    suite="quick",
    attacks=_ATTACKS,
    columns=(NO_DEFENSE, _DP, _AD_MI, _GAN_D, _GAN_ID),
    measures=(Measure(printed="AA", heading="AA", metric="aa"),),
    notes=(
        "The paper's figure could not be read; this is our reading of its layout, one line a defense below "
        "the real images, one group of columns an attack. Every tile is the first reconstruction of a label.",
    ),
)
LAYOUTS = (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, FIGURE_2)


def claims(layout: Layout) -> list[Claim]:
    """What a table supports."""
    makers = {TABLE_1.name: _claims_1, TABLE_2.name: _claims_2, TABLE_3.name: _claims_3,
              TABLE_4.name: _claims_4, TABLE_5.name: _claims_5, TABLE_6.name: _claims_6}  # fmt: skip
    return makers[layout.name](layout) if layout.name in makers else []


def _claims_1(layout: Layout) -> list[Claim]:
    victim, judge = layout.columns
    pairs = [(layout.value(place, judge, "MA"), layout.value(place, victim, "MA")) for place in layout.places]
    is_above = all(own > ref for own, ref in pairs)
    sentence = f"The evaluation model is {'more' if is_above else 'less'} accurate than the victim."
    return [
        Claim(
            id="judge-above-victim",
            sentence=sentence,
            kind="judge above victim",
            columns=(judge,),
            reference=victim,
            attacks=(),
            metric="mc_all",
            disputed="" if is_above else "the paper's own numbers do not all say so",
        )
    ]


def _claims_2(layout: Layout) -> list[Claim]:
    found = []
    for column in (_DP, _AD_MI, _GAN_D, _GAN_ID):
        found += expected.lowering(layout, column, NO_DEFENSE)
        found += expected.stopping(layout, column, NO_DEFENSE)
        found += expected.distancing(layout, column, NO_DEFENSE)
    found += expected.costing(layout, _DP, NO_DEFENSE)
    for column in (_AD_MI, _GAN_D, _GAN_ID):
        found += expected.keeping(layout, column, NO_DEFENSE)
    return found + expected.ordering(layout, NO_DEFENSE, "CelebA")


def _claims_3(layout: Layout) -> list[Claim]:
    found = []
    for column in (_RANDOM, _GAN_D_CE, _GAN_ID_CE):
        found += expected.lowering(layout, column, NO_DEFENSE, each=False)
    for column in (_GAN_D_CE, _GAN_ID_CE):
        found += expected.stopping(layout, column, NO_DEFENSE)
        found += expected.keeping(layout, column, NO_DEFENSE)
        found += expected.restoring(layout, column, _RANDOM)
        found += expected.restoring(layout, column, _RANDOM, "MC_lt")
        found += expected.lowering(layout, column, _RANDOM, each=False)
    return found + expected.costing(layout, _RANDOM, NO_DEFENSE)


def _by_term(layout: Layout) -> list[Claim]:
    """What the ablations say: push alone ruins the net, pull mends some of it, held weights the rest."""
    push, pull, cross, focal, _ = layout.columns
    found = []
    for column in (push, pull, cross, focal):
        found += expected.lowering(layout, column, NO_DEFENSE, each=False)
    found += expected.costing(layout, push, NO_DEFENSE)
    found += expected.restoring(layout, pull, push)
    for column in (cross, focal):
        found += expected.restoring(layout, column, pull)
        found += expected.restoring(layout, column, pull, "MC_lt")
        found += expected.keeping(layout, column, NO_DEFENSE)
        found += expected.stopping(layout, column, NO_DEFENSE)
    return found


def _claims_4(layout: Layout) -> list[Claim]:
    return _by_term(layout)


def _claims_5(layout: Layout) -> list[Claim]:
    return _by_term(layout)


def _claims_6(layout: Layout) -> list[Claim]:
    columns = (_INFO, _CGAN, _WGAN)
    found = expected.alike(layout, columns, NO_DEFENSE)
    for column in columns:
        found += expected.lowering(layout, column, NO_DEFENSE, each=False)
        found += expected.stopping(layout, column, NO_DEFENSE)
        found += expected.keeping(layout, column, NO_DEFENSE)
        found += expected.distancing(layout, column, NO_DEFENSE)
    return found
