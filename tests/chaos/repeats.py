"""Which tasks were started more than once, and why, from the logs of all that worked on one store."""

from collections import Counter
from collections.abc import Collection

from .noting import FAILED, RAN, STARTED
from .timeline import Note

MAIN, WORKER, TWICE, AGAIN = "main process killed", "worker killed", "worker killed twice", "done before"


def repeats_of(notes: list[Note], killed: Collection[int]) -> Counter[str]:
    """How often a task was started again, by what had become of its last start.

    `done before` is what must never be: work that was done twice.

    Args:
        notes: in order of time.
        killed: numbers of the main processes that were killed.
    """
    last: dict[str, Note] = {}
    found: Counter[str] = Counter()
    for note in notes:
        if note.what == STARTED and note.key in last:
            found[_cause(last[note.key], note, killed)] += 1
        if note.what in {STARTED, RAN, FAILED}:
            last[note.key] = note
    return found


def _cause(before: Note, now: Note, killed: Collection[int]) -> str:
    if before.what == RAN:
        return AGAIN
    if before.what == FAILED:
        return TWICE if before.why == "WorkerKilled" else f"failed: {before.why}"
    if before.pid in killed and before.pid != now.pid:
        return MAIN
    return WORKER if before.pid == now.pid else "two at once"
