"""Speed of our models, of the reference package's and of conventional twins, taking turns.

Needs the reference beside this project: ``pip install --no-deps bcos einops``. Our model takes the
reference's weights; both have six channels, the twin three. Eager, contiguous, float32::

    python scripts/compare_speed_with_bcos_v2.py --out speed_bcos_v2.csv

Rows: inference; explaining one class and several, down to pixels; memory held for backward, per
image; training step (forward, cross-entropy, backward, AdamW). The reference explains as it is
used: a forward and a backward pass in its explanation mode for each class. Costs are over the
twin's; those of explanations over a forward pass of the same model. Prints medians over
neighbouring runs, and writes them as CSV.
"""

import argparse
import csv
import importlib
import statistics
from collections import deque
from pathlib import Path

import torch
from tqdm import tqdm

from bcos_vit.explain import explain_classes
from bcos_vit.models import from_bcos_v2
from bcos_vit.models.bcos_v2 import ENTRY_POINTS
from bcos_vit.models.registry import nearest
from pathology.benchmark.contender import Contender, conventional
from pathology.benchmark.memory import kept_mib
from pathology.benchmark.speed import as_in_use, machine
from pathology.benchmark.table import check_writable
from pathology.benchmark.timing import Ratio, take_turns
from pathology.errors import PathologyError
from pathology.outputs import complete_file

ENTRIES = (
    "resnet18", "resnet50", "densenet121", "convnext_tiny", "simple_vit_ti_patch16_224",
    "vitc_ti_patch1_14", "simple_vit_s_patch16_224", "vitc_s_patch1_14",
)  # fmt: skip
SETTING = ("batch", "size_px", "threads", "device", "machine", "torch")
FIELDS = (
    "entry", "measure", "classes", "over", *SETTING, "unit", "repetitions", "ours", "reference",
    "ours_over", "reference_over", "ratio", "ratio_low", "ratio_high",
)  # fmt: skip
LINE = "{:<26} {:<17} {:>11} {:>11}  {:>6} {:>9}  {:<12} {}"


def contenders(entry, size_px, batch, device):
    """Ours, the reference's and the twin; the first two with the same weights and images."""
    torch.manual_seed(0)
    pretrained = importlib.import_module("bcos.models.pretrained")
    reference = getattr(pretrained, entry)(pretrained=False)
    ours = from_bcos_v2(entry, reference.state_dict())
    images = torch.rand(batch, 3, size_px, size_px).to(device)
    six = torch.cat([images, 1 - images], 1)
    twin = conventional(ENTRY_POINTS[entry][0], size_px)
    return Contender(ours, six), Contender(reference, six), Contender(twin, images)


def explain_as_used(contender, classes):
    """The reference's explanations of its batch: a forward and a backward pass for each class."""
    for target in range(classes):
        x = contender.images.clone().requires_grad_()
        with contender.network.explanation_mode():
            (weights,) = torch.autograd.grad(contender.network(x)[:, target].sum(), x)
        (weights * x.detach()).sum(1)


def timed(ours, reference, over, reference_over, seconds, device):
    """Times of ours and the reference's, over those of the two others."""
    runs = (ours, reference, over, reference_over)
    # Both may be the same run, which then has one turn.
    unique = list(dict.fromkeys(runs))
    taken = dict(zip(unique, take_turns(unique, seconds, device), strict=True))
    mine, theirs, base, reference_base = (taken[run] for run in runs)
    between = Ratio.of(mine, theirs)
    return {
        "unit": "s",
        "repetitions": len(mine),
        "ours": f"{statistics.median(mine):.4g}",
        "reference": f"{statistics.median(theirs):.4g}",
        "ours_over": f"{Ratio.of(mine, base).median:.3f}",
        "reference_over": f"{Ratio.of(theirs, reference_base).median:.3f}",
        "ratio": f"{between.median:.3f}",
        "ratio_low": f"{between.low:.3f}",
        "ratio_high": f"{between.high:.3f}",
    }


def kept(three):
    """Memory held for backward, per image."""
    (ours, _), (reference, _), (twin, _) = map(kept_mib, three)
    return {
        "unit": "MiB",
        "repetitions": 1,
        "ours": f"{ours:.4g}",
        "reference": f"{reference:.4g}",
        "ours_over": f"{ours / twin:.3f}",
        "reference_over": f"{reference / twin:.3f}",
        **dict.fromkeys(("ratio", "ratio_low", "ratio_high"), f"{ours / reference:.3f}"),
    }


def measure(three, counts, seconds, device):
    """Rows of one entry point; explanations of so many classes as ``counts`` says."""
    ours, reference, twin = three

    def mode(training):
        for contender in three:
            contender.network.train(training)

    mode(False)
    infer = (ours.infer, reference.infer, twin.infer, twin.infer)
    yield {"measure": "inference", "over": "twin"} | timed(*infer, seconds, device)
    for classes in counts:

        def explain(classes=classes):
            deque(explain_classes(ours.network, ours.images, range(classes)), maxlen=0)

        def explain_reference(classes=classes):
            explain_as_used(reference, classes)

        runs = (explain, explain_reference, ours.infer, reference.infer)
        what = {"measure": "explain", "classes": classes, "over": "own forward"}
        yield what | timed(*runs, seconds, device)
    mode(True)
    yield {"measure": "kept_memory", "over": "twin"} | kept(three)
    train = (ours.train, reference.train, twin.train, twin.train)
    yield {"measure": "training_step", "over": "twin"} | timed(*train, seconds, device)


def line(row):
    """A row, to be read."""
    what = row["measure"] + (f" ({row['classes']})" if row["classes"] else "")
    values = (f"{row[name]} {row['unit']}" for name in ("ours", "reference"))
    ratio = f"{row['ratio']} [{row['ratio_low']}, {row['ratio_high']}]"
    return LINE.format(
        row["entry"], what, *values, row["ours_over"], row["reference_over"], row["over"], ratio
    )


def parse(parser):
    """Options, checked."""
    known = [entry for entry in ENTRY_POINTS if not entry.startswith("standard_")]
    parser.add_argument("--entries", nargs="+", default=ENTRIES, help="the reference's names")
    parser.add_argument("--out", type=Path, default=Path("speed_bcos_v2.csv"), help="CSV to write")
    parser.add_argument("--classes", type=int, default=8, help="to explain where it is several")
    parser.add_argument("--batch", type=int, default=8, help="images at a time")
    parser.add_argument("--size-px", type=int, default=224, help="side of the images")
    parser.add_argument("--threads", type=int, default=1, help="that a CPU may use")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=20.0, help="to spend on each row, about")
    args = parser.parse_args()
    for entry in args.entries:
        if entry not in known:
            parser.error(f"no B-cos entry point is called {entry!r}{nearest(entry, known)}")
    for name in ("classes", "batch", "size_px", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"{name} must be at least 1, got {getattr(args, name)}")
    try:
        check_writable(args.out)
        torch.zeros(1, device=args.device)
        importlib.import_module("bcos.models.pretrained")
    except (PathologyError, RuntimeError, AssertionError) as error:
        parser.error(str(error).splitlines()[0])
    except ImportError as error:
        parser.error(f"the reference is not installed ({error}); pip install --no-deps bcos einops")
    return args


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args = parse(parser)
    device = torch.device(args.device)
    where = (args.batch, args.size_px, args.threads, device.type, machine(device))
    setting = dict(zip(SETTING, (*where, torch.__version__), strict=True))
    heads = ("entry", "measure", "ours", "reference", "ours x", "reference x", "over")
    print(LINE.format(*heads, "ours / reference"))
    rows = []
    with as_in_use(args.threads):
        for entry in tqdm(args.entries, unit="model", leave=False):
            three = contenders(entry, args.size_px, args.batch, device)
            for found in measure(three, (1, args.classes), args.seconds, device):
                rows.append({"entry": entry, "classes": ""} | setting | found)
                tqdm.write(line(rows[-1]))
                with complete_file(args.out) as draft, draft.open("w", newline="") as file:
                    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
