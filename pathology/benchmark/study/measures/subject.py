"""What is measured: a method on a trained network, with the tiles that it is measured on."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bcos_vit.attribution import Attribution, Classifier, Method
from pathology.benchmark.tile_sets import Examples, TileSet

Split = Literal["test", "validation"]
Maps = NDArray[np.float32]
Images = NDArray[Any]


@dataclass(eq=False)
class Subject:
    """A method on a trained network, and tiles. Maps are computed when first asked for.

    Args:
        classifier: in eval mode, on ``device``.
        method: checked against the classifier already; None is the oracle, whose map is the mask.
        tile_set: that the tiles are of.
        test: tiles to measure on.
        validation: tiles to choose thresholds on.
        device: to compute on.
        batch: images at a time.
        seed: of all that is drawn at random; the same for every method and network.
        load_variant: the same network trained another way, by the variant's name.
    """

    classifier: Classifier
    method: Method | None
    tile_set: TileSet
    test: Examples
    validation: Examples
    device: torch.device
    batch: int = 16
    seed: int = 0
    load_variant: Callable[[str], Classifier] | None = None
    _maps: dict[tuple[Split, int, int], Maps] = field(default_factory=dict)
    _logits: dict[Split, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._evidence = {
            each.image.tobytes(): each.mask
            for part in (self.test, self.validation)
            if self.method is None
            for each in _with_evidence(part)
        }

    @property
    def positive(self) -> int | None:
        """Index of the class whose evidence masks show; None where every class has its own."""
        name = self.tile_set.positive
        return None if name is None else self.tile_set.classes.index(name)

    def variant(self, name: str) -> Classifier:
        """The same network trained another way.

        Raises:
            ValueError: nobody trained it.
        """
        if self.load_variant is None:
            raise ValueError(f"no network was trained as {name}")
        return self.load_variant(name)

    def examples(self, split: Split = "test") -> Examples:
        """Tiles of a split."""
        return self.test if split == "test" else self.validation

    def rng(self, *what: object) -> np.random.Generator:
        """Random numbers for ``what``, whatever was drawn before and for whichever method."""
        words = [zlib.crc32(str(each).encode()) for each in what]
        return np.random.default_rng([self.seed, *words])

    def score(self, images: Images) -> NDArray[np.float64]:
        """Logits ``(n, classes)`` of images ``(n, h, w, 3)``, uint8 or in [0, 1]."""
        return scores(self.classifier, images, self.device, self.batch)

    def logits(self, split: Split = "test") -> NDArray[np.float64]:
        """``(n, classes)`` of a split."""
        if split not in self._logits:
            self._logits[split] = self.score(self.examples(split).images)
        return self._logits[split]

    def predicted(self, split: Split = "test") -> NDArray[np.int64]:
        """``(n,)`` class of the highest logit."""
        return self.logits(split).argmax(1).astype(np.int64)

    def explain(
        self, images: Images, target: NDArray[np.int64], classifier: Classifier | None = None
    ) -> Maps:
        """Maps ``(n, h, w)`` of images ``(n, h, w, 3)`` for classes ``(n,)``, before any scaling.

        Args:
            images: uint8, or in [0, 1].
            target: class of each.
            classifier: another than the subject's own.
        """
        if self.method is None:
            return self._masks(images)
        maps = [each.maps.float().cpu().numpy()
                for each in self.attributions(images, target, classifier)]  # fmt: skip
        return np.concatenate(maps)

    def attributions(
        self, images: Images, target: NDArray[np.int64], classifier: Classifier | None = None
    ) -> Iterator[Attribution]:
        """What the method says, batch by batch; arguments as :meth:`explain`."""
        if self.method is None:
            raise ValueError("the oracle's maps are masks; no method made them")
        network = classifier or self.classifier
        for start in range(0, len(images), self.batch):
            part = slice(start, start + self.batch)
            classes = torch.as_tensor(target[part], device=self.device)
            yield self.method(network, as_tensor(images[part], self.device), classes)

    def maps(
        self,
        target: NDArray[np.int64],
        split: Split = "test",
        rows: NDArray[np.intp] | None = None,
    ) -> Maps:
        """Maps ``(n, h, w)`` of a split's tiles; each is computed once.

        Args:
            target: ``(n,)`` class of each.
            split: of the tiles.
            rows: ``(n,)`` which tiles; the first ``n`` when omitted.
        """
        places = np.arange(len(target)) if rows is None else rows
        keys = [(split, int(i), int(c)) for i, c in zip(places, target, strict=True)]
        missing = [key for key in keys if key not in self._maps]
        if missing:
            places = np.array([i for _, i, _ in missing])
            classes = np.array([c for _, _, c in missing], np.int64)
            made = self.explain(self.examples(split).images[places], classes)
            self._maps.update(zip(missing, made, strict=True))
        return np.stack([self._maps[key] for key in keys])

    def explainer(self, target: int) -> Callable[[Images], Maps]:
        """From images to maps for one class, as measures of stability ask for them."""
        return lambda images: self.explain(images, np.full(len(images), target, np.int64))

    def _masks(self, images: Images) -> Maps:
        """The masks of known tiles."""
        bytes_ = [as_uint8(image).tobytes() for image in images]
        if any(each not in self._evidence for each in bytes_):
            raise UnknownMaskError("the oracle knows the masks of the set's own tiles only")
        return np.stack([self._evidence[each] for each in bytes_]).astype(np.float32)


class UnknownMaskError(ValueError):
    """The oracle is asked for a map of an image that is none of its tiles."""


@dataclass(frozen=True, slots=True)
class _Known:
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def _with_evidence(examples: Examples) -> list[_Known]:
    if "evidence" not in examples.masks:
        return []
    return [_Known(*pair) for pair in zip(examples.images, examples.masks["evidence"], strict=True)]


def as_uint8(image: Images) -> NDArray[np.uint8]:
    """An image of either kind as bytes."""
    if image.dtype == np.uint8:
        return image
    return np.rint(np.asarray(image) * 255).astype(np.uint8)


def as_tensor(images: Images, device: torch.device) -> torch.Tensor:
    """``(n, 3, h, w)`` in [0, 1] of images ``(n, h, w, 3)``, uint8 or in [0, 1]."""
    scaled = images.astype(np.float32)
    if images.dtype == np.uint8:
        scaled /= 255
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))).to(device)


def scores(
    classifier: Classifier, images: Images, device: torch.device, batch: int
) -> NDArray[np.float64]:
    """Logits ``(n, classes)`` of images ``(n, h, w, 3)``, uint8 or in [0, 1]."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            logits = classifier(as_tensor(images[start : start + batch], device))
            parts.append(logits.double().cpu().numpy())
    return np.concatenate(parts)
