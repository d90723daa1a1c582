"""When a plan's tasks would end on so many workers: list scheduling over the graph."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping

from mibench.key import Key
from mibench.task import Task


def makespan(
    tasks: Mapping[Key, Task], todo: Collection[Key], seconds: Mapping[Key, float], jobs: int
) -> float:
    """Seconds from start to end of the tasks in `todo`, of which `jobs` run at once.

    A free worker takes the ready task with the longest chain behind it, which is at most 2 - 1/jobs times as
    long as the best order (Graham, SIAM Journal on Applied Mathematics 1969).

    Args:
        tasks: all tasks, inputs before what reads them.
        todo: keys of those that run; what else they read is there.
        seconds: of each task in `todo`.
        jobs: >= 1.
    """
    order = [key for key in tasks if key in todo]
    if jobs == 1:
        return sum(seconds[key] for key in order)
    reads = {key: {read for read in tasks[key].inputs.values() if read in todo} for key in order}
    readers: dict[Key, list[Key]] = {key: [] for key in order}
    for key in order:
        for read in reads[key]:
            readers[read].append(key)
    rank: dict[Key, float] = {}
    for key in reversed(order):
        rank[key] = seconds[key] + max((rank[reader] for reader in readers[key]), default=0.0)
    place = {key: i for i, key in enumerate(order)}
    ready = [(-rank[key], place[key]) for key in order if not reads[key]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < jobs:
            at = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + seconds[order[at]], at))
        now, at = heapq.heappop(running)
        for reader in readers[order[at]]:
            reads[reader].discard(order[at])
            if not reads[reader]:
                heapq.heappush(ready, (-rank[reader], place[reader]))
    return now
