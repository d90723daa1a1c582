"""Which share of a GPU a task is given, judged by the memory that such tasks of the plan took before."""

from __future__ import annotations

import torch

from mibench.key import Key, canonical
from mibench.plan import Plan
from mibench.store import Store
from mibench.task import Task

TASKS_PER_CARD = 8  # of more, none gets much of a card's time
_WHOLE = 1.0
_LABELS = ("targets", "protects")  # parameters that are lists of labels
# guesses on the safe side: a process without a tensor holds some hundred MiB of a card, and the allocator
# keeps more than the peak of what is in use, because memory is cut into blocks
_CONTEXT_MIB = 1024.0
_MARGIN = 1.5


class GpuShares:
    """Shares of a card by kind of task; a kind that was never measured gets a whole card.

    Only tasks of the plan itself count: those of another suite have other images, and other peaks.

    Args:
        plan: what is run.
        store: where the costs of its tasks lie, also of those that end while it runs.
        card_mib: memory of a card in MiB; all cards are taken to be alike.
    """

    def __init__(self, plan: Plan, store: Store, *, card_mib: float) -> None:
        self.plan, self.store, self.card_mib = plan, store, card_mib
        self.peaks: dict[Key, float] = {}

    def share(self, task: Task) -> float:
        """Fraction of a card, at least 1/8 and at most 1.

        Judged by tasks of equal parameters, whoever is attacked or protected, else of the same stage and
        plugin, of which the largest counts.
        """
        kin = [one for one in self.plan.tasks.values() if _kind(one) == _kind(task)]
        equal = [one for one in kin if _size(one) == _size(task)]
        for some in (equal, kin):
            peaks = [peak for one in some if (peak := self._peak_mib(one.key)) is not None]
            if peaks:
                return self._rounded((_MARGIN * max(peaks) + _CONTEXT_MIB) / self.card_mib)
        return _WHOLE

    def _peak_mib(self, key: Key) -> float | None:
        """What a task took of a card in MiB; None where it did not run on one."""
        if key not in self.peaks:
            cost = self.store.cost(key)
            if cost.get("device") != "cuda" or not isinstance(cost.get("peak_mib"), int | float):
                return None
            self.peaks[key] = float(cost["peak_mib"])
        return self.peaks[key]

    @staticmethod
    def _rounded(share: float) -> float:
        """Up to the next of 1/8, 1/7, ... 1/2, 1, so that as many such tasks as fit fill a card."""
        return 1 / max(1, min(TASKS_PER_CARD, int(1 / share)))


def card_mib(device: torch.device) -> float:
    """Memory of a GPU in MiB."""
    return torch.cuda.get_device_properties(device).total_memory / 2**20


def _kind(task: Task) -> tuple[str, str]:
    return task.stage, task.plugin


def _size(task: Task) -> str:
    """The parameters, but of labels only how many: which people they are takes no memory."""
    counts = {name: len(task.params[name]) for name in _LABELS if name in task.params}
    return canonical({**task.params, **counts})
