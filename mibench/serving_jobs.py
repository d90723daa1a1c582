"""Has victims served: makes of every executor one whose label- and score-level attacks run apart.

The code of such an attack that comes from outside the package is kept out of the worker processes too, which
know the store and hold the victims: what they need of it is found out here, in the main process.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

from mibench.attack import Attack
from mibench.executors import Executor, MakeExecutor, OnProgress, Pool
from mibench.registry import get_attack, loaded_attacks, source_digest
from mibench.serving import Access, Served
from mibench.stages.work import prior_spec_of
from mibench.victim import WhiteBoxVictim
from mibench.worker import Job, Outcome

_ASKING = frozenset({"adapt", "invert"})


class Serving:
    """An executor that hands jobs on to another one, with served victims; an `Executor`.

    Args:
        make: makes the other one, whose jobs run in processes of their own.
        on_progress: told what workers say about how far they are.
    """

    def __init__(self, make: MakeExecutor, on_progress: OnProgress) -> None:
        self.inner: Executor = make(on_progress)
        self.jobs = self.inner.jobs

    def submit(self, job: Job) -> None:
        """Take a job."""
        self.inner.submit(apart(job))

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        """Jobs that have ended since; see `mibench.executors.Executor`."""
        return self.inner.poll()

    def stop(self) -> None:
        """Give up what runs."""
        self.inner.stop()


def maker_of(
    executor: MakeExecutor | None, jobs: int, *, served: bool, is_limited: bool
) -> MakeExecutor | None:
    """What makes the executor of a run; None leaves it to the runner, which may work in its own process.

    Args:
        executor: that was asked for, or None.
        jobs: worker processes of this machine where none was.
        served: whether victims are served.
        is_limited: whether tasks have a limit of time, and must be where they can be stopped.
    """
    if executor is None and (served or is_limited):
        executor = partial(Pool, jobs)
    return partial(Serving, executor) if served and executor is not None else executor


def apart(job: Job) -> Job:
    """A job whose attack runs apart from the victim, if that is what it is about; its key stays.

    Attacks at white-box level hold the victim by definition: their jobs stay as they are.
    """
    task = job.task
    attack, attacks = _attack_of(job), loaded_attacks()
    rest = replace(job, plugin_files=tuple(file for file in job.plugin_files if file not in attacks))
    if attack is None:
        return rest
    file = next((file for file, plugin in attacks.items() if plugin is type(attack)), None)
    whole = rest if file is None else replace(rest, plugin_files=(*rest.plugin_files, file))
    if issubclass(attack.needed_access, WhiteBoxVictim):
        return whole
    if task.stage in _ASKING:
        level = cast(Access, attack.needed_access.level)
        return replace(rest, served=Served(level, attack.goal, file))
    if not source_digest(type(attack)):
        return rest
    spec = None if "attack" in task.params else prior_spec_of(task.locator)
    if spec is not None and not source_digest(type(spec)):  # ours, with the numbers that the attack gave it
        return replace(rest, task=replace(task, locator={**task.locator, "prior_from": {"spec": spec}}))
    # a defense that learns with a prior of the attack's own making has to load it
    return replace(rest, served=Served(None, file=file)) if task.stage == "prior" else whole


def _attack_of(job: Job) -> Attack[Any] | None:
    """The attack whose code a job would run, or ask for its prior; None where it has none to do with one."""
    task = job.task
    if task.stage in _ASKING or (task.stage == "prior" and "attack" in task.params):
        plugin: Attack[Any] = get_attack(task.plugin).from_params(task.params["attack"])
        return plugin
    owner = task.locator.get("prior_from")
    if owner is None or owner.get("family") != "attack":
        return None
    found: Attack[Any] = get_attack(owner["name"]).from_params(owner["params"])
    return found


__all__ = ["Serving", "apart", "maker_of"]
