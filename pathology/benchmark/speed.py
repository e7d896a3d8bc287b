"""Cost of B-cos models over their conventional twins, and of explanations over a forward pass."""

import gc
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import timm
import torch

from bcos_vit.errors import UnknownModelError
from bcos_vit.models import TWINS
from bcos_vit.models.registry import nearest
from pathology.benchmark.contender import LAYOUTS, MODES, contenders, is_convnet
from pathology.benchmark.measures import MEASURES, Comparison, Pair
from pathology.benchmark.table import Row
from pathology.errors import PathologyError

MODELS = (
    "bcos_resnet18",
    "bcos_resnet50",
    "bcos_densenet121",
    "bcos_convnext_tiny",
    "bcos_vit_tiny_patch16_224",
    "bcos_vitc_tiny_patch16_224",
    "bcos_vit_small_patch16_224",
    "bcos_vitc_small_patch16_224",
    "bcos_swin_tiny_patch4_window7_224",
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One row to measure."""

    model: str
    measure: str
    classes: str
    mode: str
    layout: str


@dataclass(frozen=True)
class SpeedBenchmark:
    """What to measure, and how.

    Args:
        models: B-cos models that have a twin.
        measures: keys of :data:`MEASURES`.
        modes: ``"eager"`` and ``"compiled"``; explanations and what is held for backward are
            eager.
        layouts: ``"contiguous"`` and ``"channels_last"``, the latter for networks with feature
            maps only.
        classes: to explain where it is several.
        batch: images at a time.
        size_px: side of the images; each model's own when omitted.
        threads: that torch may use on a CPU.
        device: ``"cpu"`` or ``"cuda"``; ``"auto"`` is the GPU if there is one.
        seconds: to spend on each time, about; warm-up and compilation come on top.

    Raises:
        UnknownModelError: a model that does not exist or has no twin; names the nearest.
        ValueError: another argument that is unknown or out of range, or nothing to measure.
    """

    models: Sequence[str] = MODELS
    measures: Sequence[str] = tuple(MEASURES)
    modes: Sequence[str] = MODES
    layouts: Sequence[str] = tuple(LAYOUTS)
    classes: int = 8
    batch: int = 8
    size_px: int | None = None
    threads: int = 1
    device: str = "auto"
    seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in self.models:
            if name not in TWINS:
                raise UnknownModelError(f"{name!r} has no twin here{nearest(name, list(TWINS))}")
        for what, known in (
            ("measures", tuple(MEASURES)), ("modes", MODES), ("layouts", tuple(LAYOUTS)),
        ):  # fmt: skip
            for name in getattr(self, what):
                if name not in known:
                    hint = nearest(name, known) or f"; one of {', '.join(known)}"
                    raise ValueError(f"{what}: there is no {name!r}{hint}")
        for what in ("classes", "batch", "size_px", "threads"):
            value = getattr(self, what)
            if value is not None and value < 1:
                raise ValueError(f"{what} must be at least 1, got {value}")
        if not self.seconds >= 0:
            raise ValueError(f"seconds must be at least 0, got {self.seconds}")
        if not self.cells:
            raise ValueError(
                "nothing to measure: explanations and kept_memory are measured eager, networks of"
                " tokens contiguous"
            )
        try:
            if self.where.type not in ("cpu", "cuda"):
                raise RuntimeError("neither a CPU nor a CUDA GPU")
            torch.zeros(1, device=self.where)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {self.device!r} cannot be used: {reason}") from error

    @cached_property
    def where(self) -> torch.device:
        """The device measured on."""
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)

    @cached_property
    def cells(self) -> list[Cell]:
        """The rows that there will be; those of one pair of networks are neighbours."""
        cells = []
        for model in dict.fromkeys(self.models):
            for layout in dict.fromkeys(self.layouts):
                if layout == "channels_last" and not is_convnet(model):
                    continue
                for mode in dict.fromkeys(self.modes):
                    for name, measure in MEASURES.items():
                        if name in self.measures and mode in measure.modes:
                            classes = measure.classes
                            shown = str(self.classes) if classes is None else classes
                            cells.append(Cell(model, name, shown, mode, layout))
        return cells

    def setting(self, model: str) -> Row:
        """Columns that tell one setting from another."""
        return {
            "batch": str(self.batch),
            "size_px": str(self.size_px or own_size_px(model)),
            "threads": str(self.threads),
            "device": self.where.type,
            "machine": machine(self.where),
            "torch": torch.__version__,
        }

    def measure(self, cells: Sequence[Cell]) -> Iterator[Row]:
        """Rows of ``cells``, one at a time.

        Raises:
            PathologyError: a model cannot be compiled here.
        """
        with as_in_use(self.threads):
            for (model, layout, mode), group in groupby(
                cells, key=lambda cell: (cell.model, cell.layout, cell.mode)
            ):
                size_px = self.size_px or own_size_px(model)
                pair = Pair(
                    *contenders(model, size_px, self.batch, self.where, mode, layout),
                    self.seconds,
                    self.classes,
                )
                for cell in group:
                    try:
                        found = MEASURES[cell.measure].compare(pair)
                    except torch._dynamo.exc.TorchDynamoException as error:
                        reason = next(iter(str(error).splitlines()), type(error).__name__)
                        raise PathologyError(
                            f"{model} or its twin cannot be compiled here ({reason});"
                            " --modes eager leaves that out"
                        ) from error
                    yield self._row(cell, pair, found)
                del pair
                free(mode)

    def _row(self, cell: Cell, pair: Pair, found: Comparison) -> Row:
        return {
            "model": cell.model,
            "peer": MEASURES[cell.measure].peer,
            "measure": cell.measure,
            "classes": cell.classes,
            "depth": found.depth,
            "mode": cell.mode,
            "layout": cell.layout,
            "dtype": str(pair.ours.dtype).removeprefix("torch."),
            **self.setting(cell.model),
            "unit": found.unit,
            "repetitions": str(found.repetitions),
            "ours": f"{found.ours:.4g}",
            "theirs": f"{found.theirs:.4g}",
            "ours_per_image": f"{found.ours_per_image:.4g}",
            "theirs_per_image": f"{found.theirs_per_image:.4g}",
            "ratio": f"{found.ratio.median:.3f}",
            "ratio_low": f"{found.ratio.low:.3f}",
            "ratio_high": f"{found.ratio.high:.3f}",
        }


def own_size_px(model: str) -> int:
    """Side of the images that a model is meant for."""
    config = timm.get_pretrained_cfg(model)
    assert config is not None
    return int(config.input_size[-1])


def machine(device: torch.device) -> str:
    """What numbers are measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named or [platform.machine()])[0]


@contextmanager
def as_in_use(threads: int) -> Iterator[None]:
    """That many threads, and float32 that is float32, as explanations need it; restored after."""
    before = (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
    )
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32 = before[2]


def free(mode: str) -> None:
    """Give back what networks that are gone had: memory, and compiled code."""
    if mode == "compiled":
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
