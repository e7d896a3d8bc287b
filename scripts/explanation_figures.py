"""Figures of the pages in docs/explanation, from small networks that are trained here.

Two minutes on a core::

    python scripts/explanation_figures.py [--out docs/images/explanation]
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bcos_vit.models  # noqa: F401  registers bcos_* in timm
from bcos_vit.attribution import Classifier, make_method
from bcos_vit.explain import explain
from bcos_vit.stain_space import StainSpace
from bcos_vit.transforms import add_complement
from pathology.aggregators import make_aggregator
from pathology.aggregators.explain import explain_bag
from pathology.aggregators.removal import removal_effects
from pathology.benchmark.tile_sets.synthetic import SyntheticTiles

BLUE, RED, GREY, DARK = "#2166ac", "#b2182b", "#bbbbbb", "#333333"
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def transform(out: Path) -> None:
    """Answers of a unit by angle, for several exponents."""
    angle = np.linspace(0, 180, 361)
    cosine = np.cos(np.radians(angle))
    figure, axes = plt.subplots(figsize=(5, 2.8), layout="constrained")
    for b, colour in zip((1, 1.25, 1.5, 2, 2.5), plt.get_cmap("viridis")(np.linspace(0, 0.9, 5)),
                         strict=True):  # fmt: skip
        axes.plot(angle, np.abs(cosine) ** (b - 1) * cosine, color=colour, label=f"b = {b:g}")
    axes.axhline(0, color=GREY, lw=0.8, zorder=0)
    axes.set(xlabel="angle between input and weights, degrees", xticks=range(0, 181, 45),
             ylabel="answer, of an input of length 1")  # fmt: skip
    axes.legend(frameon=False)
    _save(figure, out / "bcos_transform.png")


def tiles(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """RGB ``(n, 3, 64, 64)`` in [0, 1] and labels ``(n,)`` of made-up tissue."""
    made = SyntheticTiles({"train": count, "val": 4, "test": 4}, seed=seed)
    found = [tile for tile in made.make() if tile.split == "train"]
    images = np.stack([tile.image for tile in found]).transpose(0, 3, 1, 2)
    labels = [int(tile.label == "tumour") for tile in found]
    return torch.from_numpy(images.astype(np.float32) / 255), torch.tensor(labels)


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, lr: float) -> nn.Module:
    """Adam, binary cross-entropy, batches of 16."""
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=epochs * (len(images) // 16)
    )
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // 16 * 16].view(-1, 16):
            batch = images[rows].flip(-1) if torch.rand(1) < 0.5 else images[rows]
            loss = F.binary_cross_entropy_with_logits(
                model(batch), F.one_hot(labels[rows], 2).float()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def exactness(out: Path, images: Tensor, labels: Tensor) -> None:
    """What contributions leave of the logit: B-cos, and a conventional network's products."""
    ours = train(timm.create_model("bcos_resnet18", num_classes=2), six(images), labels, 4, 3e-3)
    theirs = train(timm.create_model("resnet18", num_classes=2), images, labels, 4, 1e-3)
    shown, target = images[:60], torch.ones(60, dtype=torch.long)
    explained = explain(ours, six(shown), target=target)
    product = make_method("input_x_gradient")(Classifier(theirs, nn.Identity()), shown, target)
    with torch.no_grad():
        own, other = ours(six(shown))[:, 1], theirs(shown)[:, 1]
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
    sums = explained.contributions.sum((1, 2)) + explained.bias
    pairs = (("B-cos ResNet-18", own, sums), ("ResNet-18, input x gradient", other,
             product.maps.sum((1, 2))))  # fmt: skip
    for each, (title, logit, total) in zip(axes, pairs, strict=True):
        logit, total = logit.double(), total.detach().double()
        ends = [float(min(logit.min(), total.min())), float(max(logit.max(), total.max()))]
        each.plot(ends, ends, color=GREY, lw=1, zorder=0)
        each.scatter(logit, total, s=9, color=BLUE)
        each.set_title(f"{title}\nlargest gap {float((logit - total).abs().max()):.1e} logits",
                       fontsize=9)  # fmt: skip
        each.set(xlabel="logit", ylabel="sum of the map and bias")
    _save(figure, out / "exactness.png")


def six(images: Tensor) -> Tensor:
    """With complements."""
    return add_complement(images)


def position(out: Path, images: Tensor, labels: Tensor) -> None:
    """Shares of the logits by kind of position code."""
    figure, axes = plt.subplots(figsize=(5, 1.9), layout="constrained")
    for row, (kind, name) in enumerate((("sincos", "added (sincos)"), ("rope", "rotary (ours)"))):
        torch.manual_seed(0)
        model = timm.create_model("bcos_vitc_tiny_patch16_224", num_classes=2, img_size=64,
                                  depth=2, pos_embed=kind)  # fmt: skip
        model = train(model, six(images), labels, 8, 5e-4)
        shown = images[:60]
        explained = explain(model, six(shown), target=labels[:60])
        parts = {"pixels": explained.contributions.sum((1, 2))}
        parts |= dict(explained.constants)
        sizes = {key: float(value.abs().double().mean()) for key, value in parts.items()}
        total, left = sum(sizes.values()), 0.0
        for key, size in sizes.items():
            share = 100 * size / total
            axes.barh(row, share, left=left, color=BLUE if key == "pixels" else RED)
            if share > 3:
                axes.text(left + share / 2, row, f"{key} {share:.0f} %", ha="center",
                          va="center", color="white")  # fmt: skip
            left += share
        print(f"position: {name}: {sizes}")
    axes.set(yticks=[0, 1], yticklabels=["added (sincos)", "rotary (ours)"], xlim=(0, 100),
             xlabel="share of the logits, without the bias, %")  # fmt: skip
    _save(figure, out / "position.png")


def removal(out: Path) -> None:
    """Contributions and removal effects of tiles, in a bag with ten key tiles."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 3), layout="constrained")
    for each, (name, title) in zip(axes, (("bcos_gated_sum", "gated sum"), ("bcos_attention",
                                   "attention")), strict=True):  # fmt: skip
        model = _aggregator(name)
        bag, key = _bag(torch.Generator().manual_seed(999), True)
        parts = explain_bag(model, bag, 1).contributions.detach()
        effects = removal_effects(model, bag, 1).effects
        low, high = float(min(parts.min(), effects.min())), float(max(parts.max(), effects.max()))
        each.plot([low, high], [low, high], color=GREY, lw=1, zorder=0)
        for mask, colour, label in ((~key, DARK, "other tiles"), (key, RED, "key tiles")):
            each.scatter(parts[mask], effects[mask], s=12, color=colour, label=label)
        each.set(title=title, xlabel="contribution, logits", ylabel="removal effect, logits")
    axes[0].legend(frameon=False, loc="lower right")
    _save(figure, out / "removal.png")


def _bag(draw: torch.Generator, is_positive: bool) -> tuple[Tensor, Tensor]:
    """60 tiles of 16 features, ten of them key ones in a positive bag."""
    features = torch.randn(60, 16, generator=draw)
    key = torch.zeros(60, dtype=torch.bool)
    if is_positive:
        key[torch.randperm(60, generator=draw)[:10]] = True
        features[key, 0] += 5
    return features, key


def _aggregator(name: str) -> nn.Module:
    torch.manual_seed(0)
    model, draw = make_aggregator(name, 16, 2), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for step in range(1000):
        bag, _ = _bag(draw, step % 2 == 1)
        wanted = F.one_hot(torch.tensor([step % 2]), 2).float()
        loss = F.binary_cross_entropy_with_logits(model(bag[None]), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def stain(out: Path, image: Tensor) -> None:
    """A tile and its amounts of stains."""
    amounts = StainSpace().amounts(image[None])[0].numpy()
    figure, axes = plt.subplots(1, 4, figsize=(8, 1.9), layout="constrained")
    axes[0].imshow(image.permute(1, 2, 0).numpy())
    axes[0].set_title("tile", fontsize=9)
    for each, part, name in zip(axes[1:], amounts, ("haematoxylin", "eosin", "residue"),
                                strict=True):  # fmt: skip
        top = float(np.abs(part).max())
        drawn = each.imshow(part, cmap="RdBu_r", vmin=-top, vmax=top)
        each.set_title(name, fontsize=9)
        figure.colorbar(drawn, ax=each, shrink=0.7)
    for each in axes:
        each.set(xticks=[], yticks=[])
    _save(figure, out / "stain_space.png")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/explanation"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transform(out)
    removal(out)
    images, labels = tiles(400, 1)
    stain(out, images[1])
    exactness(out, images, labels)
    position(out, images, labels)


if __name__ == "__main__":
    main()
