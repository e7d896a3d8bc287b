"""What a study consists of: which networks are trained, which methods are measured on them."""

from collections.abc import Iterator
from dataclasses import dataclass

from pathology.benchmark.study.config import NamedMethod, Study
from pathology.benchmark.study.measures import GROUPS


@dataclass(frozen=True, slots=True)
class Training:
    """A network that is trained.

    Args:
        data: name of the tile set.
        backbone: name of the network.
        seed: of the training.
        variant: how it is trained otherwise; empty for the plain one.
    """

    data: str
    backbone: str
    seed: int
    variant: str = ""

    @property
    def name(self) -> str:
        """To be read, a part of a folder's name."""
        end = f"-{self.variant}" if self.variant else ""
        return f"{self.data}-{self.backbone}-s{self.seed}{end}"


@dataclass(frozen=True, slots=True)
class Unit:
    """A method on a trained network, by some groups of metrics.

    Args:
        training: of the network.
        method: of explanation.
        groups: names.
        pictures: whether its maps are kept for the page.
    """

    training: Training
    method: NamedMethod
    groups: tuple[str, ...]
    pictures: bool = False

    @property
    def name(self) -> str:
        """To be read."""
        return f"{self.training.name}-{self.method.label}"


def trainings(study: Study) -> Iterator[Training]:
    """Plain networks first, then those that groups of metrics need beside them."""
    plain = [
        Training(data, backbone.name, seed)
        for data in study.data
        for backbone in study.backbones
        for seed in study.seeds
    ]
    yield from plain
    for each in plain:
        for variant in variants(study, each.data):
            yield Training(each.data, each.backbone, each.seed, variant)


def groups_on(study: Study, data: str) -> tuple[str, ...]:
    """Groups of metrics that say something about a tile set.

    Where a mark is planted nobody knows where a map ought to point but at the mark, as far as the
    network relies on it; where none is, there is nothing to find.
    """
    is_planted = bool(study.data[data].get("confounder"))
    other = "plain" if is_planted else "planted"
    return tuple(name for name in study.metrics if GROUPS[name].on != other)


def variants(study: Study, data: str) -> list[str]:
    """Names of variants that the study's groups need on a tile set, each once."""
    names = [
        variant
        for group in groups_on(study, data)
        for variant in GROUPS[group].variants(study.metrics[group])
    ]
    return list(dict.fromkeys(names))


def units(study: Study, timed: bool) -> Iterator[Unit]:
    """Methods on plain networks.

    Args:
        study: what is compared.
        timed: those groups that measure time or memory, or the others.
    """
    for training in trainings(study):
        if training.variant:
            continue
        on = groups_on(study, training.data)
        groups = tuple(name for name in on if GROUPS[name].times == timed)
        shows = not timed and bool(study.pictures) and training.seed == study.seeds[0]
        if groups or shows:
            for method in study.methods:
                yield Unit(training, method, groups, shows)
