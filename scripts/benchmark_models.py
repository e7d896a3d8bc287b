"""Cost of B-cos models relative to their conventional twins; a CSV row per model.

For each B-cos model (six channels) and its twin (three, as it is used), eager, in float32, on one
thread: seconds for a forward pass in eval mode; seconds for a training step (forward,
cross-entropy, backward, AdamW); MiB that its forward pass keeps for the backward pass, for every
image and once for all. Both networks take turns, so that a machine that slows down slows down
both; a ratio is the median over pairs of neighbouring runs, and its quartiles tell the spread::

    python scripts/benchmark_models.py                         # seven minutes on a quiet core
    python scripts/benchmark_models.py --models bcos_swin_base_patch4_window7_224
    python scripts/model_table.py                              # puts the ratios on docs/models.md

Models that the file has are skipped, so it can be stopped and run again. One file holds one
setting (batch, size, machine, torch): rows of another are refused, not mixed.
"""

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bcos_vit.models import TWINS, create_model, create_twin
from bcos_vit.models.registry import nearest

OUT = Path(__file__).parents[1] / "docs" / "models_cost.csv"
MODELS = (
    "bcos_vit_tiny_patch16_224",
    "bcos_vit_small_patch16_224",
    "bcos_vitc_tiny_patch16_224",
    "bcos_swin_tiny_patch4_window7_224",
    "bcos_resnet18",
    "bcos_resnet50",
    "bcos_resnext50_32x4d",
    "bcos_densenet121",
    "bcos_vgg11_bnu",
    "bcos_convnext_tiny",
    "bcos_convnext_tiny_bnu",
    "bcos_inception_v3",
)
PHASES = ("inference", "training")
SETTING = ("size_px", "batch", "device", "machine", "torch")
FIELDS = (
    "model",
    *SETTING,
    *(
        f"{phase}_{field}"
        for phase in PHASES
        for field in ("pairs", "s", "twin_s", "ratio", "ratio_low", "ratio_high")
    ),
    "image_mib",
    "image_twin_mib",
    "image_mib_ratio",
    "once_mib",
    "once_twin_mib",
)
LEAST_PAIRS, MOST_PAIRS = 3, 50

Row = dict[str, str]


def machine(device: torch.device) -> str:
    """What the numbers were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{(named or [platform.machine()])[0]}, 1 thread"


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long ``run`` takes until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def take_turns(
    ours: Callable[[], object], twins: Callable[[], object], budget_s: float, device: torch.device
) -> tuple[list[float], list[float]]:
    """Times of both in turn, after one run of each, for ``budget_s`` or the least that will do."""
    start = time.perf_counter()
    ours(), twins()
    times: tuple[list[float], list[float]] = ([], [])
    while len(times[0]) < LEAST_PAIRS or (
        len(times[0]) < MOST_PAIRS and time.perf_counter() - start < budget_s
    ):
        times[0].append(seconds(ours, device))
        times[1].append(seconds(twins, device))
    return times


class Contender:
    """A network with what it needs for a forward pass and for a training step."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self.network = network.to(images.device)
        self.images = images
        self.labels = torch.arange(len(images), device=images.device)
        self.optimizer = torch.optim.AdamW(network.parameters())
        self._settle()

    def _settle(self) -> None:
        """Take batch norms' statistics from the images.

        As made, they would let the signal of a deep network sink to where arithmetic is slow.
        """
        norms = [module for module in self.network.modules() if hasattr(module, "momentum")]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.network.train()(self.images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def infer(self) -> None:
        with torch.inference_mode():
            self.network(self.images)

    def loss(self, times: int = 1) -> Tensor:
        """Of all images, the batch being repeated ``times``."""
        images, labels = self.images.repeat(times, 1, 1, 1), self.labels.repeat(times)
        return F.cross_entropy(self.network(images), labels)

    def train(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def kept_mib(self) -> tuple[float, float]:
        """What a forward pass keeps for its backward pass: for each image, and once for all."""
        single, double = self._kept_mib(1), self._kept_mib(2)
        return (double - single) / len(self.images), 2 * single - double

    def _kept_mib(self, times: int) -> float:
        """The same for ``times`` batches together.

        What the network itself stores is left out; every storage counts once, however many tensors
        show parts of it.
        """
        network = self.network
        own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            # Not the tensor itself: an output that its own graph holds is never freed.
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self.loss(times)
        del loss  # Not earlier: what it holds would be freed, and its addresses given out again.
        return sum(kept.values()) / 2**20


def contenders(name: str, size: int, batch: int, device: torch.device) -> list[Contender]:
    """The B-cos model and its twin, each with images of its own channels."""
    model = create_model(name)
    # Twins with tokens have a grid of their own.
    options = {"img_size": size} if hasattr(model, "patch_embed") else {}
    images = torch.rand(batch, 3, size, size, device=device)
    return [
        Contender(model, torch.cat([images, 1 - images], 1)),
        Contender(create_twin(name, **options), images),
    ]


def measure(name: str, size: int, batch: int, device: torch.device, budget_s: float) -> Row:
    """Times, memory and ratios of one model, as the CSV has them."""
    torch.manual_seed(0)
    pair = contenders(name, size, batch, device)
    row: Row = {}
    # A step costs about three forward passes.
    for phase, share in zip(PHASES, (0.3, 0.7), strict=True):
        training = phase == "training"
        for each in pair:
            each.network.train(training)
        ours, twins = take_turns(
            *(each.train if training else each.infer for each in pair), budget_s * share, device
        )
        low, ratio, high = statistics.quantiles(
            [a / b for a, b in zip(ours, twins, strict=True)], n=4, method="inclusive"
        )
        row |= {
            f"{phase}_pairs": str(len(ours)),
            f"{phase}_s": f"{statistics.median(ours):.4g}",
            f"{phase}_twin_s": f"{statistics.median(twins):.4g}",
            f"{phase}_ratio": f"{ratio:.3f}",
            f"{phase}_ratio_low": f"{low:.3f}",
            f"{phase}_ratio_high": f"{high:.3f}",
        }
    (image, once), (image_twin, once_twin) = (each.kept_mib() for each in pair)
    return row | {
        "image_mib": f"{image:.2f}",
        "image_twin_mib": f"{image_twin:.2f}",
        "image_mib_ratio": f"{image / image_twin:.3f}",
        "once_mib": f"{once:.2f}",
        "once_twin_mib": f"{once_twin:.2f}",
    }


def read(path: Path) -> dict[str, Row]:
    """Rows by model; none where there is no file."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def write(path: Path, rows: dict[str, Row]) -> None:
    """All rows, or the file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    partial.replace(path)


def main() -> None:
    """Measure what the file does not have, a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="B-cos models")
    parser.add_argument("--out", type=Path, default=OUT, help="CSV to add rows to")
    parser.add_argument("--size", type=int, help="side of images in pixels; each model's own")
    parser.add_argument("--batch", type=int, default=4, help="images at a time")
    parser.add_argument("--seconds", type=float, default=30.0, help="to spend on each model, about")
    parser.add_argument("--again", action="store_true", help="also models that the file has")
    parser.add_argument(
        "--device", default="cpu", help='"cpu" or "cuda"; the latter is written but untried'
    )
    args = parser.parse_args()
    unknown = [name for name in args.models if name not in TWINS]
    if unknown:
        parser.error(f"{unknown[0]!r} has no twin here{nearest(unknown[0], list(TWINS))}")
    torch.set_num_threads(1)
    device = torch.device(args.device)
    where = {"device": device.type, "machine": machine(device), "torch": torch.__version__}

    def setting(name: str) -> Row:
        own_size = timm.get_pretrained_cfg(name).input_size[-1]
        return {"size_px": str(args.size or own_size), "batch": str(args.batch), **where}

    rows = read(args.out)
    for name, row in rows.items():
        for field, wanted in setting(name).items():
            if row[field] != wanted:
                parser.error(
                    f"{args.out}: {name} has {field} {row[field]}, this run {wanted};"
                    " choose another --out"
                )
    todo = [name for name in args.models if args.again or name not in rows]
    for i, name in enumerate(todo, 1):
        start = time.perf_counter()
        of = setting(name)
        row = measure(name, int(of["size_px"]), args.batch, device, args.seconds)
        rows[name] = {"model": name, **of, **row}
        write(args.out, rows)
        print(
            f"{i}/{len(todo)} {name}: inference x{row['inference_ratio']},"
            f" training step x{row['training_ratio']}, memory x{row['image_mib_ratio']}"
            f" ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
