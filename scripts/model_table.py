"""Write the tables of docs/models.md: B-cos models with size, accuracy, cost and twin.

Models and twins come from the registry, accuracies from the table of published weights, costs from
docs/speed.csv (see ``pathology benchmark speed``); parameters and multiply-adds are counted on
networks without storage. What stands above the tables is written by hand::

    python scripts/model_table.py            # writes the tables
    python scripts/model_table.py --check    # exits with 2 where they would be others

``--check`` counts multiply-adds for the first model of each table only and takes the page's word
for the others: counting all takes half a minute.
"""

import argparse
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bcos_vit.models import TWINS, create_model, list_models
from bcos_vit.models.base import BcosModel
from bcos_vit.models.weights import PUBLISHED, PublishedWeights
from pathology.benchmark.speed import own_size_px
from pathology.benchmark.table import read_rows

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "models.md"
COSTS = DOCS / "speed.csv"
COLUMNS = ("inference", "training_step", "kept_memory")
NOTHING = "-"

Costs = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Rows by model and measure."""

MARK = "<!-- Written by scripts/model_table.py from here on. -->"
WIDTH = 108


@dataclass(frozen=True)
class Family:
    """A table of the page.

    Args:
        title: its heading.
        members: pattern that the names of its models match.
        note: what to know about them.
    """

    title: str
    members: str
    note: str = ""


HEADS = (
    "model", "parameters", "GFLOPs", "top-1", "twin", "inference", "training step", "memory",
    "exactly complete",
)  # fmt: skip
FAMILIES = (
    Family(
        "ViT",
        r"bcos_vit_.*",
        "Position is a rotary code on queries and keys. The published networks (tag"
        " `.in1k`, or `pretrained=True`) add a sine-cosine code to the tokens instead and have no"
        " learnt branch scales: two networks of one name, so two rows. `depth14` is the"
        " reference's large.",
    ),
    Family(
        "ViT with convolutional stem",
        r"bcos_vitc_.*",
        "The stem stands for one block; position and `.in1k` are as above. timm has no such twin:"
        " it is the same class in conventional form.",
    ),
    Family(
        "Swin",
        r"bcos_swin_.*",
        "Position is a learnt number per offset, inside the softmax of each window.",
    ),
    Family("ResNet and ResNeXt", r"bcos_resnex?t\d+.*"),
    Family("DenseNet", r"bcos_densenet\d+"),
    Family(
        "VGG",
        r"bcos_vgg\d+_bnu",
        "`bnu` is uncentred batch norm. The layer after the feature map is a convolution that sees"
        " every position of it, the twin's sees one: hence more multiply-adds.",
    ),
    Family(
        "ConvNeXt",
        r"bcos_convnext_.*",
        "Norms are over the channels of each position, or uncentred batch norm (`bnu`).",
    ),
    Family("Inception-v3", r"bcos_inception_v3"),
    Family(
        "Conventional networks of the reference",
        r"(simple_vit|vitc)_.*",
        "ViTs with biases and activations, of three channels, normalised by their data config."
        " They are explained as exactly; biases and position have their shares of a logit.",
    ),
)


def members(family: Family) -> list[str]:
    """Names of the family's models on the page: all B-cos models, and what else was published.

    In the order in which they are registered: sizes grow.
    """
    names = [*TWINS, *list_models(), *(weights.model for weights in PUBLISHED)]
    return [name for name in dict.fromkeys(names) if re.fullmatch(family.members, name)]


def build(name: str, **arguments: Any) -> BcosModel:
    """The model, without storage."""
    with torch.device("meta"):
        model = create_model(name, **arguments)
    assert isinstance(model, BcosModel)
    return model.eval()


def multiply_adds(model: BcosModel) -> int:
    """Of one image of the model's own size."""
    image = torch.empty(1, *model.pretrained_cfg["input_size"], device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def completeness(model: BcosModel) -> str:
    """What an explanation tells apart besides the logit bias."""
    terms = {term for m in model.modules() for term in getattr(m, "constant_terms", ())} - {"bias"}
    return f"{' and '.join(sorted(terms))} told apart" if terms else "yes"


def rows(name: str) -> Iterator[tuple[str, BcosModel, list[PublishedWeights]]]:
    """A model's rows: label, network and weights; one more where another network was published."""
    published = [weights for weights in PUBLISHED if weights.model == name]
    yield name, build(name), [weights for weights in published if not weights.model_args]
    for weights in published:
        if weights.model_args:
            yield weights.name, build(name, **weights.model_args), [weights]


def top1(published: list[PublishedWeights]) -> str:
    """Published accuracies, each beside that of its conventional counterpart."""
    conventional = {weights.entry: weights.top1 for weights in PUBLISHED}
    cells = []
    for weights in published:
        counterpart = conventional.get(f"standard_{weights.entry}")
        beside = f" ({counterpart:.3f})" if counterpart else ""
        cells.append(f"{weights.top1:.3f}{beside} `{weights.tag}`")
    return ", ".join(cells) or NOTHING


def made_with(arguments: Mapping[str, Any]) -> str:
    """Arguments of a twin, as they are written."""
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def twin(name: str, shared: Mapping[str, Any]) -> str:
    """The twin's name, and what it is made with beside what is ``shared`` in its table."""
    if name not in TWINS:
        return NOTHING
    conventional, arguments = TWINS[name]
    own = made_with({key: value for key, value in arguments.items() if key not in shared})
    return f"`{conventional}`" + (f" with `{own}`" if own else "")


def shared_arguments(names: list[str]) -> dict[str, Any]:
    """What the twins of all these models are made with."""
    each = [TWINS[name][1] for name in names if name in TWINS]
    first = each[0] if each else {}
    return {k: v for k, v in first.items() if all(k in one and one[k] == v for one in each)}


def cost(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Cells of a model's cost over its twin's."""
    cells = []
    for measure in COLUMNS:
        cell = NOTHING
        if row := found.get(measure):
            cell = f"{float(row['ratio']):.2f}"
            if row["ratio_low"] != row["ratio_high"]:
                cell += f" [{float(row['ratio_low']):.2f}, {float(row['ratio_high']):.2f}]"
        cells.append(cell)
    return cells


def table(family: Family, costs: Costs, counted: Mapping[str, str]) -> str:
    """A family's part of the page; multiply-adds as ``counted``, but for the first model."""
    names = members(family)
    shared = shared_arguments(names)
    lines = [HEADS, ("---",) * len(HEADS)]
    for name in names:
        for label, model, published in rows(name):
            known = counted.get(label) if len(lines) > 2 else None
            cells = (
                f"`{label}`",
                f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}",
                known or f"{multiply_adds(model) / 1e9:.2f}",
                top1(published),
                twin(name, shared),
                *cost(costs.get(label, {})),
                completeness(model),
            )
            lines.append(cells)
    note = family.note
    if shared:
        note += f" Twins are made with `{made_with(shared)}`."
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return "\n\n".join(part for part in (f"### {family.title}", wrap(note), text) if part)


def sizes() -> dict[str, int]:
    """Side in pixels of the images that each model is meant for."""
    return {name: own_size_px(name) for name in list_models()}


def legend(costs: Costs) -> list[str]:
    """What the columns mean, a line each."""
    [(usual, _)] = Counter(sizes().values()).most_common(1)
    others = [f", {size} px for `{name}`" for name, size in sizes().items() if size != usual]
    measured = "None is measured yet: `pathology benchmark speed`."
    for row in (row for found in costs.values() for row in found.values()):
        threads = f"{row['threads']} thread{'' if row['threads'] == '1' else 's'}"
        measured = (
            f"Measured by `pathology benchmark speed` on {row['machine']}, {threads}, torch"
            f" {row['torch']}, {row['dtype']}, eager, contiguous, {row['batch']} images at a time;"
            f" all numbers are in [{COSTS.name}]({COSTS.name})."
        )
        break
    return [
        "**parameters**: millions, with a head for 1000 classes.",
        f"**GFLOPs**: billions of multiply-adds for one image of {usual} px{''.join(others)}, each"
        " counted once, as papers and timm do. Convolutions, linear layers and attention count;"
        " norms and the scale of B-cos layers do not.",
        "**top-1**: accuracy on ImageNet's validation images in %, as published, with the tag of"
        " the weights; in brackets that of the authors' conventional counterpart, where its"
        " weights are published too.",
        "**twin**: the conventional network of the same depth and width;"
        " `bcos_vit.models.create_twin` makes it from the B-cos model's name.",
        "**inference**, **training step**, **memory**: cost over that of the twin, which has three"
        " channels. Seconds: median and quartiles. Memory: what the forward pass keeps of each"
        f" image for the backward pass. {measured}",
        f"**{NOTHING}**: not published, or not measured.",
    ]


def wrap(text: str, indent: str = "") -> str:
    """``text`` in lines that are not too long to read."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def tables(costs: Costs, counted: Mapping[str, str]) -> str:
    """All that is written here.

    Args:
        costs: measured costs by model and measure.
        counted: GFLOPs that are known already, by label of their row.

    Raises:
        ValueError: a registered model that belongs to no table.
    """
    lost = set(list_models()) - {name for family in FAMILIES for name in members(family)}
    if lost:
        raise ValueError(f"no table is for {min(lost)}; give it one in FAMILIES")
    lines = "\n".join(wrap(f"* {line}", "  ") for line in legend(costs))
    title = f"## The {len(list_models())} models"
    return "\n\n".join([title, lines, *(table(f, costs, counted) for f in FAMILIES)]) + "\n"


def read_costs() -> Costs:
    """Measured costs over the twins, eager and contiguous; none where nothing was measured.

    Raises:
        ValueError: a model was measured at another size than its own.
    """
    costs: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in read_rows(COSTS).values():
        name, size = row["model"], str(own_size_px(row["model"]))
        if row["size_px"] != size:
            raise ValueError(
                f"{COSTS.name}: {name} was measured at {row['size_px']} px, not at {size}"
            )
        if (row["mode"], row["layout"]) == ("eager", "contiguous"):
            costs.setdefault(name, {})[row["measure"]] = row
    return costs


def read_counted(text: str) -> dict[str, str]:
    """GFLOPs in a page's tables, by label."""
    return dict(re.findall(r"^\| `(\S+)` \| [\d.]+ \| ([\d.]+) \|", text, re.MULTILINE))


def first_difference(old: str, new: str) -> str | None:
    """The first line in which two texts differ, as a complaint about the old one."""
    for is_there, should_be in zip_longest(old.splitlines(), new.splitlines(), fillvalue=""):
        if is_there != should_be:
            return f"has {is_there!r} where there should be {should_be!r}"
    return None


def main() -> None:
    """Write the tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 2 if outdated")
    args = parser.parse_args()
    by_hand, mark, old = PAGE.read_text().partition(MARK)
    if not mark:
        parser.error(f"docs/{PAGE.name} has no line {MARK!r}; tables go below it")
    new = f"\n\n{tables(read_costs(), read_counted(old) if args.check else {})}"
    if not args.check:
        PAGE.write_text(by_hand + mark + new)
    elif difference := first_difference(old, new):
        parser.error(f"docs/{PAGE.name} {difference}; run python scripts/model_table.py")


if __name__ == "__main__":
    main()
