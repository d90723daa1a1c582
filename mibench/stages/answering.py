"""What a deployed model says of real images; every cell that attacks the model shares it."""

from __future__ import annotations

from mibench.stages.protecting import as_victim, deployed
from mibench.stages.work import Work, trained_net
from mibench.store import Artifact


def answer(work: Work) -> Artifact:
    """The labels that the deployed model gives to real images.

    Tensors, int64: `test` (N,), of the private test images, and `public` (M,), of the defender's public
    images, where a metric asks for them.
    """
    output = work.input("output") if "output" in work.task.inputs else None
    net = trained_net(work.input("train"), work.ctx.device)
    victim = as_victim(deployed(net, output, work.ctx.device, work.ctx.max_batch), net.spec, work.ctx)
    parts = {"test": work.labeled("private", "test")}
    if "defender" in work.task.inputs:
        parts["public"] = work.labeled("defender")
    answers = {name: victim.labels(part.images) for name, part in parts.items()}
    return Artifact(answers, {}, work.task.description())
