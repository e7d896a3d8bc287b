"""Maps must change when what the network learnt is thrown away, and differ between classes."""

import numpy as np

from bcos_vit.attribution import Classifier
from bcos_vit.attribution.randomise import randomise
from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.faithfulness import first
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.benchmark.study.variants import SHUFFLED
from pathology.map_quality.agreement import similarity
from pathology.map_quality.randomisation import entropy_rise, parameter_similarity

GROUP = "sanity"
CONSTANT = "a map is constant"


def sanity(subject: Subject, *, examples: int, draws: int) -> list[Value]:
    """Of the predicted class: random parameters, shuffled labels, another class.

    Args:
        subject: a method on a network.
        examples: the first so many of the test tiles; 0 is all.
        draws: of random parameters, whose values are averaged.
    """
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle looks at no network")
    some = first(subject.test, examples)
    logits = subject.logits()[: len(some)]
    target = logits.argmax(1).astype(np.int64)
    maps = subject.maps(target)
    rises, likes = [], []
    for draw in range(draws):
        network = Classifier(
            randomise(subject.classifier.model, subject.seed + draw), subject.classifier.encode
        )
        other = subject.explain(some.images, target, network)
        rises.append(entropy_rise(maps, other))
        likes.append(parameter_similarity(maps, other))
    shuffled = subject.explain(some.images, target, subject.variant(SHUFFLED))
    second = np.argsort(logits, 1)[:, -2].astype(np.int64)
    between = similarity(maps, subject.maps(second))
    found = {
        "emprt": np.mean(rises, 0),
        "parameter_similarity": np.mean(likes, 0),
        "label_similarity": similarity(maps, shuffled),
        "class_similarity": between,
    }
    return [
        each
        for metric, numbers in found.items()
        for each in per_example(GROUP, metric, numbers, some, [CONSTANT] * len(some))
    ]
