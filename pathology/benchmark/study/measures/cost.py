"""What a map costs."""

import numpy as np

from pathology.benchmark.memory import peak_mib
from pathology.benchmark.study.measures.catalogue import METRICS, undefined, value
from pathology.benchmark.study.measures.subject import Subject, as_tensor
from pathology.benchmark.study.rows import Value
from pathology.benchmark.timing import take_turns

GROUP = "cost"


def cost(subject: Subject, *, images: int, seconds: float) -> list[Value]:
    """Seconds, memory and passes of a map.

    Args:
        subject: a method on a network.
        images: in the batch that is timed.
        seconds: to spend, about; at least three runs after warm-up.
    """
    method = subject.method
    if method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle computes nothing")
    part = slice(0, images)
    batch = as_tensor(subject.test.images[part], subject.device)
    target = batch.new_tensor(subject.predicted()[part]).long()

    def run() -> object:
        return method(subject.classifier, batch, target)

    done = method(subject.classifier, batch, target)
    [times] = take_turns([run], seconds, subject.device)
    return [
        value(GROUP, "map_seconds", float(np.median(times)) / len(batch),
              note=f"median of {len(times)} runs of {len(batch)} images"),
        value(GROUP, "map_memory", peak_mib(run, subject.device), note=f"{len(batch)} images"),
        value(GROUP, "forward_passes", float(done.forward_passes)),
        value(GROUP, "backward_passes", float(done.backward_passes)),
    ]  # fmt: skip
