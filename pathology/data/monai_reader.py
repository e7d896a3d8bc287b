"""Our slides as MONAI reads them: its datasets, transforms and splitters, exact at any mpp."""

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.wsi_reader import BaseWSIReader
from monai.utils.enums import WSIPatchKeys
from monai.utils.misc import ensure_tuple, ensure_tuple_rep
from monai.utils.type_conversion import dtype_torch_to_numpy
from numpy.typing import NDArray

from pathology.geometry import Box
from pathology.slides import Slide, open_slide
from pathology.slides.colour import ColourSpace

AT_MPP = -1
"""The level of a reader that was made for an ``mpp`` or a ``power``: none of the file's, that."""

SUFFIXES = (
    "svs",
    "tif",
    "tiff",
    "ndpi",
    "mrxs",
    "scn",
    "svslide",
    "bif",
    "vms",
    "vmu",
    "dcm",
    "czi",
)


class SlideReader(BaseWSIReader):
    """MONAI's interface to slides, over :func:`~pathology.slides.open_slide`.

    As everywhere in MONAI, places and sizes are (row, column), a location is in level-0 pixels and
    a size in pixels of what is read. Other than in MONAI's own readers, any ``mpp`` is read as it
    is, by resampling from the nearest finer level; what lies outside of the slide has its
    background's colour; several slides may be read at one ``mpp``; and slides, so also datasets
    that hold them, can be pickled and read in workers, forked or spawned.

    MONAI's datasets and splitter always say a level, 0 unless told. For a reader made for an
    ``mpp`` that would be another field of view than meant, so level 0 is refused then; say
    ``patch_level=AT_MPP`` (and ``mask_level=AT_MPP`` in ``SlidingPatchWSIDataset``,
    ``level=AT_MPP`` in ``WSISlidingWindowSplitter``). And say ``center_location=False``: MONAI goes
    from a centre to a corner by half the patch in level-0 pixels, which is right at level 0 alone.
    The splitter warns about every reader that is not one of MONAI's two; what it says of speed and
    memory does not hold here.

    Args:
        level: the file's level to read, 0 the finest; ``AT_MPP`` for that of ``mpp`` or ``power``.
        mpp: micrometres per pixel of what is read, one number or (rows, columns).
        power: objective power, for slides that tell theirs.
        slide_mpp: micrometres per level-0 pixel of slides, ``(x, y)`` or one number, instead of
            what their files say.
        colour: ``"srgb"`` to convert by the files' colour profiles.
        channel_dim: where the colours go, 0 or -1.
        dtype: numpy's or torch's type of the result.
        device: where the result goes, as in MONAI.
        mode: "RGB", the only one there is.

    Raises:
        ValueError: two of ``level``, ``mpp`` and ``power``, or one of them impossible.

    Example:
        >>> reader = SlideReader(mpp=0.5)
        >>> tiles = PatchWSIDataset(  # doctest: +SKIP
        ...     [{"image": "case.svs", "location": [512, 900], "label": 1}],
        ...     patch_size=224, patch_level=AT_MPP, center_location=False, reader=reader,
        ... )
    """

    # The datasets open a slide for every patch where this is "openslide".
    backend = "pathology"

    def __init__(
        self,
        level: int | None = None,
        mpp: float | tuple[float, float] | None = None,
        power: float | None = None,
        *,
        slide_mpp: float | tuple[float, float] | None = None,
        colour: ColourSpace = "stored",
        channel_dim: int = 0,
        dtype: Any = np.uint8,
        device: torch.device | str | None = None,
        mode: str = "RGB",
    ) -> None:
        if mpp is not None and power is not None:
            raise ValueError(f"only one of mpp and power can be met, got {mpp} and {power}")
        at_mpp = mpp is not None or power is not None
        if level is not None and (level == AT_MPP) != at_mpp:
            other = "an mpp or a power" if level == AT_MPP else f"level={AT_MPP} (AT_MPP) or none"
            raise ValueError(f"level={level} with mpp={mpp} and power={power}; give {other}")
        if mode != "RGB":
            raise ValueError(f"slides are read as RGB, got mode {mode!r}")
        super().__init__(
            level=AT_MPP if at_mpp else level or 0,
            mpp=mpp,
            power=power,  # type: ignore[arg-type]  # MONAI says int, and compares with floats
            channel_dim=channel_dim,
            dtype=dtype,
            device=device,
            mode=mode,
        )
        self.supported_suffixes = list(SUFFIXES)
        self.slide_mpp = slide_mpp
        self.colour: ColourSpace = colour

    def read(self, data: Sequence[Any] | PathLike | str, **kwargs: Any) -> Any:
        """The slide of a file, or a list of those of several.

        Args:
            data: path or paths.
            kwargs: ``mpp``, ``colour`` or ``backend`` of ``open_slide``, instead of the reader's.

        Raises:
            PathologyError: see :func:`~pathology.slides.open_slide`.
        """
        options = {"mpp": self.slide_mpp, "colour": self.colour} | kwargs
        slides = [open_slide(Path(path), **options) for path in ensure_tuple(data)]
        return slides if len(slides) > 1 else slides[0]

    def get_level_count(self, wsi: Slide) -> int:
        return len(wsi.levels)

    def get_size(self, wsi: Slide, level: int) -> tuple[int, int]:
        """Rows and columns of a level; of the slide at the reader's mpp for ``AT_MPP``."""
        if level != AT_MPP:
            plane = wsi.levels[self._known(wsi, level)]
            return plane.height, plane.width
        return _size(wsi, self._steps(wsi, level))

    def get_downsample_ratio(self, wsi: Slide, level: int) -> float:
        """Level-0 pixels per pixel of a level.

        Raises:
            ValueError: no such level, or level 0 for a reader that was made for an mpp.
        """
        down, across = self._steps(wsi, level)
        return math.sqrt(down * across)

    def get_file_path(self, wsi: Slide) -> str:
        return str(wsi.path.absolute()) if wsi.path is not None else wsi.slide_id

    def get_mpp(self, wsi: Slide, level: int) -> tuple[float, float]:
        """Micrometres per pixel of a level, of rows and of columns."""
        down, across = self._steps(wsi, level, guard=False)
        return down * wsi.mpp.y, across * wsi.mpp.x

    def get_power(self, wsi: Slide, level: int) -> float:
        """The objective's power, as the file tells it, over the level's downsample."""
        down, across = self._steps(wsi, level, guard=False)
        return _power(wsi) / math.sqrt(down * across)

    def get_wsi_at_mpp(
        self, wsi: Slide, mpp: float | tuple[float, float], atol: float = 0.0, rtol: float = 0.0
    ) -> Any:
        """The whole slide at exactly ``mpp``; MONAI's tolerances have no use here."""
        return self.get_data(wsi, mpp=mpp)[0]

    def get_data(
        self,
        wsi: Slide | Sequence[Slide],
        location: tuple[float, float] = (0, 0),
        size: tuple[int, int] | None = None,
        level: int | None = None,
        mpp: float | tuple[float, float] | None = None,
        power: float | None = None,
        mode: str | None = None,
    ) -> tuple[Any, dict]:
        """Pixels of one slide, or of several behind one another as channels, and their metadata.

        Args:
            wsi: what :meth:`read` returned.
            location: top and left in level-0 pixels; may lie outside of the slide.
            size: rows and columns of the result; the whole slide when omitted.
            level: the file's level, or ``AT_MPP``.
            mpp: micrometres per pixel, one number or (rows, columns).
            power: objective power. Without any of the three, what the reader was made for.
            mode: "RGB".

        Returns:
            The pixels, channels at ``channel_dim``, and MONAI's keys with ``mpp`` beside them.

        Raises:
            SlideOpenError: the file is damaged there.
            ValueError: two of ``level``, ``mpp``, ``power``; no such level; a size below 1.
        """
        if sum(value is not None for value in (level, mpp, power)) > 1:
            raise ValueError(f"only one of level={level}, mpp={mpp} and power={power} can be met")
        if mode not in (None, "RGB"):
            raise ValueError(f"slides are read as RGB, got mode {mode!r}")
        slides = [wsi] if isinstance(wsi, Slide) else list(wsi)
        location = (0, 0) if location is None else location
        patches, all_metadata = [], []
        for slide in slides:
            if mpp is not None or power is not None:
                steps, read_level = _steps_at(slide, mpp, power), AT_MPP
            else:
                read_level = int(self.level or 0) if level is None else level
                steps = self._steps(slide, read_level)
            if size is not None:
                sides = int(size[0]), int(size[1])
                box = _box(location, sides, steps)
            elif tuple(location) != (0, 0):
                raise ValueError(f"a patch at {tuple(location)} needs a size")
            elif read_level == AT_MPP:
                sides = _size(slide, steps)
                box = Box(0, 0, *slide.size)  # all of it, also the part of a pixel at its end
            else:
                sides = self.get_size(slide, read_level)
                box = _box(location, sides, steps)
            patch = self._converted(slide.render(box, sides[1], sides[0]))
            place = location[0], location[1]
            metadata = self._get_metadata(slide, patch, place, sides, read_level)  # type: ignore[arg-type]
            metadata["mpp"] = steps[0] * slide.mpp.y, steps[1] * slide.mpp.x
            patches.append(patch)
            all_metadata.append(metadata)
        return _joined(patches, all_metadata)

    def _get_patch(
        self,
        wsi: Slide,
        location: tuple[float, float],
        size: tuple[int, int],
        level: int,
        dtype: Any,
        mode: str,
    ) -> NDArray[Any]:
        pixels = wsi.render(_box(location, size, self._steps(wsi, level)), size[1], size[0])
        return np.moveaxis(pixels, -1, self.channel_dim).astype(dtype)

    def _steps(self, wsi: Slide, level: int, guard: bool = True) -> tuple[float, float]:
        """Level-0 pixels per pixel of a level, along rows and columns."""
        if level == AT_MPP:
            return _steps_at(wsi, self.mpp, self.power)
        if guard and level == 0 and self.level == AT_MPP:
            made_for = f"mpp={self.mpp}" if self.mpp is not None else f"power={self.power}"
            raise ValueError(
                f"this reader was made for {made_for}, but asked for level 0, as MONAI does unless"
                f" told: give patch_level, mask_level or level as {AT_MPP} (AT_MPP)"
            )
        plane = wsi.levels[self._known(wsi, level)]
        down = plane.downsample
        # Scanners shrink by whole factors and cut what is left over; else the sides tell.
        if down == round(down) and all(
            abs(full - down * part) < down
            for full, part in ((wsi.size.width, plane.width), (wsi.size.height, plane.height))
        ):
            return down, down
        return wsi.size.height / plane.height, wsi.size.width / plane.width

    def _known(self, wsi: Slide, level: int) -> int:
        if not 0 <= level < len(wsi.levels):
            raise ValueError(
                f"{self.get_file_path(wsi)}: has levels 0 to {len(wsi.levels) - 1}, not {level};"
                " a reader made for an mpp reads any scale"
            )
        return level

    def _converted(self, pixels: NDArray[np.uint8]) -> Any:
        patch = np.moveaxis(pixels, -1, self.channel_dim)
        if not isinstance(self.dtype, torch.dtype):
            patch = patch.astype(self.dtype)
            on_gpu = self.device is not None and torch.device(self.device).type == "cuda"
            return torch.as_tensor(patch, device=self.device) if on_gpu else patch
        patch = patch.astype(dtype_torch_to_numpy(self.dtype))
        return torch.as_tensor(patch, device=self.device)


def _steps_at(
    slide: Slide, mpp: float | tuple[float, float] | None, power: float | None
) -> tuple[float, float]:
    """Level-0 pixels per pixel at an mpp or a power, along rows and columns."""
    if mpp is None:
        if power is None:
            raise ValueError(f"level {AT_MPP} is for readers that were made for an mpp or a power")
        if not math.isfinite(power) or power <= 0:
            raise ValueError(f"power must be finite and above 0, got {power}")
        step = _power(slide) / power
        return step, step
    rows, columns = ensure_tuple_rep(mpp, 2)
    if not all(math.isfinite(value) and value > 0 for value in (rows, columns)):
        raise ValueError(f"mpp must be finite micrometres per pixel above 0, got {mpp}")
    return rows / slide.mpp.y, columns / slide.mpp.x


def _power(slide: Slide) -> float:
    try:
        power = float(slide.properties.get("openslide.objective-power", ""))
    except ValueError:
        power = 0.0
    if power <= 0:
        raise ValueError(f"{slide.path}: does not tell its objective's power; ask for an mpp")
    return power


def _size(slide: Slide, steps: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the whole slide."""
    return (
        max(1, round(slide.size.height / steps[0])),
        max(1, round(slide.size.width / steps[1])),
    )


def _box(location: tuple[float, float], size: tuple[int, int], steps: tuple[float, float]) -> Box:
    """What ``size`` rows and columns of ``steps`` level-0 pixels cover from ``location`` on.

    Raises:
        ValueError: a side below 1.
    """
    if min(size) < 1:
        raise ValueError(f"a patch needs sides of at least 1 px, got {tuple(size)}")
    top, left = (float(value) for value in location)
    return Box(left, top, size[1] * steps[1], size[0] * steps[0])


def _joined(patches: list[Any], all_metadata: list[dict]) -> tuple[Any, dict]:
    """Patches of several slides as MONAI joins them: as channels, with lists for its keys."""
    metadata = all_metadata[-1]
    if len(patches) == 1:
        return patches[0], metadata
    shapes = sorted({tuple(map(int, each["spatial_shape"])) for each in all_metadata})
    if len(shapes) > 1:
        raise ValueError(f"patches of several sizes cannot be joined: {shapes}; give a size")
    for key in (*(key.value for key in WSIPatchKeys), "mpp"):
        metadata[key] = [each[key] for each in all_metadata]
    axis = metadata["original_channel_dim"]
    if isinstance(patches[0], torch.Tensor):
        return torch.cat(patches, dim=axis), metadata
    return np.concatenate(patches, axis=axis), metadata
