"""Attack accuracy in a space of faces that was learned from strangers."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._second import first_places, share


@dataclass(frozen=True, kw_only=True)
class EmbedderAccuracy(Metric):
    """Share of protected labels' reconstructions that lie nearest to the targeted person's centroid.

    Nearest by angle in the embedder's space, among the centroids of all private people's training images. The
    embedder was never taught who these people are, so it shares no decision boundary with judge or victim.
    Interval as for `aa`.
    """

    name = "aa_embedder"
    title = "AA (embedder)"
    better = "lower"
    percent = True
    needs = frozenset({"embedder"})
    card = Card(title="Top-1 identification in a space of faces that was learned from other people")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return share(case, first_places(case, case.likeness))
