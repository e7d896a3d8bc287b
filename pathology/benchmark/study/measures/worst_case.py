"""How far changes too small to see can move a map while the answer stays."""

from pathology.benchmark.study.measures.catalogue import METRICS, per_example, undefined
from pathology.benchmark.study.measures.faithfulness import as_float, first
from pathology.benchmark.study.measures.subject import Subject
from pathology.benchmark.study.rows import Value
from pathology.map_quality.question import Question
from pathology.map_quality.worst_case import chance_of_change, worst_change

GROUP = "worst_case"


def worst_case(subject: Subject, *, examples: int, rounds: int, samples: int) -> list[Value]:
    """Of the predicted class, on a few tiles: each asks for hundreds of maps.

    Args:
        subject: a method on a network.
        examples: the first so many of the test tiles.
        rounds: of the search for the farthest map, a batch of maps each.
        samples: maps per level of the search for how probable it is that noise moves a map far.
    """
    if subject.method is None:
        return undefined(GROUP, METRICS[GROUP], "the oracle looks at no pixel")
    some = first(subject.test, examples)
    worst, chances = [], []
    for image, name, aim in zip(
        as_float(some.images), some.names, subject.predicted().tolist(), strict=False
    ):
        question = Question(subject.score, image, aim, batch=subject.batch)
        asked = question, subject.explainer(aim)
        worst.append(worst_change(*asked, subject.rng(GROUP, "search", name), rounds=rounds))
        chances.append(chance_of_change(*asked, subject.rng(GROUP, "noise", name), samples=samples))
    return [
        *per_example(GROUP, "farthest", [each.distance for each in worst], some,
                     [each.note for each in worst]),
        *per_example(GROUP, "chance_of_change", [each.probability for each in chances], some,
                     [_why(each.note, each.high) for each in chances]),
    ]  # fmt: skip


def _why(note: str, high: float) -> str:
    return f"{note}; below about {high:.1e}" if note and high == high else note
