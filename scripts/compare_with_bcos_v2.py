"""Our models against the reference package, for every entry point, on random weights in float64.

Needs the reference beside this project: ``pip install --no-deps bcos einops``. Each network gets
random weights and running variances of one batch; our model takes its state dict, and both are
asked for logits and for the contribution map of one class. Prints the largest difference relative
to the largest value, and exits with 1 where logits differ by more than 1e-9 or maps by more than
1e-5.
"""

import argparse
import importlib
import sys

import torch
from tqdm import tqdm

from bcos_vit.explain import explain
from bcos_vit.models import from_bcos_v2
from bcos_vit.models.bcos_v2 import ENTRY_POINTS

LOGITS, MAPS = 1e-9, 1e-5
TARGET = 3


def reference(entry):
    """The reference's network, float64, with weights and statistics that are not defaults."""
    pretrained = importlib.import_module("bcos.models.pretrained")
    model = getattr(pretrained, entry)(pretrained=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return model.double()


def settle(model, images):
    """Running variances from one batch, so that signals neither vanish nor explode."""
    for module in model.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    model.eval()


def difference(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def compare(entry, size):
    """Relative differences of logits and of a map; no map for conventional networks."""
    torch.manual_seed(0)
    theirs = reference(entry)
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    if not entry.startswith("standard_"):
        images = torch.cat([images, 1 - images], 1)
    settle(theirs, images)
    ours = from_bcos_v2(entry, theirs.state_dict())
    with torch.no_grad():
        logits = difference(ours(images), theirs(images))
    if entry.startswith("standard_"):
        return logits, 0.0
    x = images[:1].clone().requires_grad_()
    with theirs.explanation_mode():
        (weights,) = torch.autograd.grad(theirs(x)[0, TARGET], x)
    expected = (weights * x.detach()).sum(1)
    return logits, difference(explain(ours, images[:1], TARGET).contributions, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", nargs="+", default=list(ENTRY_POINTS), help="default: all")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    arguments = parser.parse_args()
    try:
        importlib.import_module("bcos.models.pretrained")
    except ImportError as error:
        sys.exit(f"the reference is not installed ({error}); pip install --no-deps bcos einops")
    worst = 0.0
    for entry in tqdm(arguments.entries, unit="model"):
        logits, maps = compare(entry, arguments.size)
        tqdm.write(f"{entry:40} logits {logits:.1e}  map {maps:.1e}")
        worst = max(worst, logits / LOGITS, maps / MAPS)
    if not worst <= 1:
        sys.exit(1)


if __name__ == "__main__":
    main()
