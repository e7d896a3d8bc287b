"""A study of slides: aggregators trained on bags, and what their explanations are worth.

Everything is kept as it comes: features of each slide, weights and values of each aggregator. To go
on is to run again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pathology.aggregators import AGGREGATORS, Aggregator
from pathology.benchmark.nearest import hint
from pathology.benchmark.slides.bags import VERSION as BAGS
from pathology.benchmark.slides.bags import BagSpec, Progress, SlideBag, make_bags
from pathology.benchmark.slides.tile_methods import NAMES
from pathology.benchmark.slides.training import build, common_scale, train_aggregator
from pathology.benchmark.slides.values import check_methods, slide_values
from pathology.benchmark.study.rows import Value
from pathology.data.encoders import Encoder
from pathology.outputs import complete_file
from pathology.runs.chosen_encoder import chosen_encoder
from pathology.runs.encoder_choice import EncoderChoice

SPLITS = ("train", "val", "test")
VERSION = 2
"""Goes up when the same weights give other values, so that these are made anew."""


@dataclass(frozen=True, slots=True)
class SlideStudy:
    """Settings of a study of slides.

    Args:
        encoder: what makes features of tiles: the folder of a run on tiles, or a model of timm's
            registry with random weights of ``encoder_seed`` (a control).
        encoder_seed: of a model with random weights; not of a run.
        encoder_args: of such a model, e.g. ``img_size``, which has to be a tile's.
        label: of the encoder, put before an aggregator's name where a table has several.
        aggregators: names of :data:`pathology.aggregators.AGGREGATORS`.
        methods: of :data:`pathology.benchmark.slides.tile_methods.NAMES`.
        slides: by split, how many; half of them with a lesion. Sufficiency wants 20 without, so 40
            in ``test``.
        bag: what slides are like.
        hidden: width of the aggregators.
        epochs: of their training.
        batch: bags of a step.
        rates: learning rates to try.
        seed: of slides, weights and choices at random.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``.

    Raises:
        ValueError: a value that makes no sense, naming it.
    """

    encoder: str
    encoder_seed: int | None = None
    encoder_args: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    aggregators: tuple[str, ...] = (
        "bcos_gated_sum", "bcos_attention", "bcos_pooled", "abmil", "additive", "clam", "transmil",
    )  # fmt: skip
    methods: tuple[str, ...] = NAMES
    slides: Mapping[str, int] = field(default_factory=lambda: {"train": 32, "val": 12, "test": 40})
    bag: BagSpec = field(default_factory=BagSpec)
    hidden: int = 128
    epochs: int = 40
    batch: int = 4
    rates: tuple[float, ...] = (1e-3, 5e-3)
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.encoder, str) or not self.encoder.strip():
            raise ValueError(f"encoder: wanted the folder of a run on tiles, got {self.encoder!r}")
        if not self.aggregators:
            raise ValueError("aggregators: there must be one, got none")
        for name in self.aggregators:
            if name not in AGGREGATORS:
                raise ValueError(f"aggregators: there is no {name!r}; {hint(name, AGGREGATORS)}")
        check_methods(self.methods)
        if sorted(self.slides) != sorted(SPLITS):
            raise ValueError(f"slides: wanted numbers for {', '.join(SPLITS)}, got {self.slides}")
        for split, count in self.slides.items():
            if not isinstance(count, int) or count < 2:
                raise ValueError(f"slides.{split}: at least 2, half with a lesion; got {count}")
        for name, least in (("hidden", 2), ("epochs", 1), ("batch", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: wanted a whole number from {least} up, got {value}")
        for name in self.aggregators:
            try:
                build(name, 1, self.hidden, 2)
            except ValueError as error:  # a width that heads do not divide, ...
                raise ValueError(f"hidden: {name} cannot have {self.hidden}: {error}") from error
        if not self.rates or not all(rate > 0 for rate in self.rates):
            raise ValueError(f"rates: wanted positive numbers, got {self.rates}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed: must be a whole number from 0 up, got {self.seed}")

    @property
    def names(self) -> dict[str, bool]:
        """Names of all slides, and whether each has a lesion."""
        return {
            f"{split}_{'lesion' if i % 2 else 'normal'}_{i // 2:03d}": bool(i % 2)
            for split in SPLITS
            for i in range(self.slides[split])
        }


def read_slide_study(words: Mapping[str, Any]) -> SlideStudy:
    """Settings as a YAML file has them; ``bag`` is a mapping, lists are lists.

    Raises:
        ValueError: an unknown key (with the nearest), or a value that makes no sense.
    """
    known = [each.name for each in fields(SlideStudy)]
    of_bag = [each.name for each in fields(BagSpec)]
    given = dict(words)
    for key in given:
        if key not in known:
            raise ValueError(f"slides.{key}: no such key; {hint(key, known)}")
    if "encoder" not in given:
        raise ValueError("slides.encoder: missing; give the folder of a run on tiles, or a model")
    bag = given.pop("bag", None) or {}
    if not isinstance(bag, dict):
        raise ValueError(f"slides.bag: got {bag!r}, wanted settings (key: value)")
    for key in bag:
        if key not in of_bag:
            raise ValueError(f"slides.bag.{key}: no such key; {hint(key, of_bag)}")
    try:
        return SlideStudy(bag=BagSpec(**_tuples(bag)), **_tuples(given))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"slides: {error}") from error


def _tuples(words: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in words.items()}


def run_slides(
    settings: SlideStudy,
    out: Path,
    progress: Progress = lambda steps, total, what: steps,
) -> list[Value]:
    """Values of every aggregator and method, with ``backbone`` and ``method`` set.

    Args:
        settings: of the study.
        out: folder for all that is kept; studies with other settings may share it.
        progress: wraps slides, given their number and what is being done.

    Raises:
        ManifestError, ValueError, WeightsError, UnknownModelError: the encoder cannot be had, or
            takes other tiles.
        OutputError: ``out`` cannot be written.
    """
    if settings.encoder_seed is None and not Path(settings.encoder).is_dir():
        raise ValueError(
            f"encoder: there is no folder {settings.encoder!r}; give that of a run on tiles, or a"
            " model and encoder_seed (random weights: a control)"
        )
    choice = EncoderChoice(
        settings.encoder, seed=settings.encoder_seed, arguments=dict(settings.encoder_args) or None
    )
    encoder, _, device = chosen_encoder(choice, settings.device)
    key = _bags_key(settings, encoder)
    bags = make_bags(
        settings.bag, encoder, settings.names, out / f"bags-{_digest(key)}", seed=settings.seed,
        device=device, progress=progress,
    )  # fmt: skip
    parts = {s: [bag for name, bag in bags.items() if name.startswith(f"{s}_")] for s in SPLITS}
    values: list[Value] = []
    for name in settings.aggregators:
        values += _of_aggregator(name, settings, key, parts, out, device, progress)
    return values


def _of_aggregator(
    name: str,
    settings: SlideStudy,
    key: Mapping[str, Any],
    parts: Mapping[str, list[SlideBag]],
    out: Path,
    device: torch.device,
    progress: Progress,
) -> list[Value]:
    """Values of one aggregator, kept or made."""
    training = {
        **key, "aggregator": name, "slides": [settings.slides["train"], settings.slides["val"]],
        "hidden": settings.hidden, "epochs": settings.epochs, "batch": settings.batch,
        "rates": settings.rates,
    }  # fmt: skip
    asked = {
        **training, "test": settings.slides["test"], "methods": settings.methods,
        "label": settings.label, "values": VERSION,
    }  # fmt: skip
    path = out / f"{name}-{_digest(asked)}.json"
    if path.is_file():
        return [Value(**each) for each in json.loads(path.read_text())]
    weights = out / f"{name}-{_digest(training)}.pt"
    scale = common_scale(parts["train"])
    for _ in progress(range(1), 1, f"{name}: training"):
        model = _trained(name, settings, parts, weights, scale, device)
    shown = f"{settings.label}, {name}" if settings.label else name
    values = slide_values(
        model, parts["test"], name=shown, scale=scale, methods=settings.methods,
        seed=settings.seed, progress=progress,
    )  # fmt: skip
    with complete_file(path) as draft:
        draft.write_text(json.dumps([asdict(each) for each in values]) + "\n")
    return values


def _trained(
    name: str,
    settings: SlideStudy,
    parts: Mapping[str, list[SlideBag]],
    path: Path,
    scale: float,
    device: torch.device,
) -> Aggregator:
    """An aggregator, kept or trained, on the CPU."""
    if path.is_file():
        bags = parts["train"]
        tiles = sorted(len(bag.features) for bag in bags)[len(bags) // 2]
        model = build(name, bags[0].features.shape[1], settings.hidden, tiles)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    model = train_aggregator(
        name, parts["train"], parts["val"], scale=scale, hidden=settings.hidden,
        epochs=settings.epochs, batch=settings.batch, rates=settings.rates, seed=settings.seed,
        device=device,
    )  # fmt: skip
    with complete_file(path) as draft:
        torch.save(model.state_dict(), draft)
    return model


def _bags_key(settings: SlideStudy, encoder: Encoder) -> dict[str, Any]:
    """What decides the bags."""
    from pathology.synthetic.cohort import VERSION as SLIDES

    return {
        "version": [BAGS, SLIDES], "encoder": [encoder.weights, encoder.encoding],
        "bag": asdict(settings.bag), "seed": settings.seed,
    }  # fmt: skip


def _digest(what: Mapping[str, Any]) -> str:
    text = json.dumps(what, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
