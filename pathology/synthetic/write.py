"""Writing a synthetic slide and its ground truth to disk, band by band."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathology.errors import OutputError
from pathology.outputs import draft_path
from pathology.synthetic.pyramid import PyramidWriter
from pathology.synthetic.slide import BLOCK, render
from pathology.synthetic.spec import SyntheticSlideSpec

_KIND_QUALITY = 60


@dataclass(frozen=True, slots=True)
class SlideFiles:
    """The files of one written slide.

    Args:
        slide: colours, JPEG.
        regions: classes of tissue, lossless.
        evidence: kinds of nuclei, lossless.
        region_px: level-0 pixels of (no tissue, normal, tumour).
    """

    slide: Path
    regions: Path
    evidence: Path
    region_px: tuple[int, int, int]

    @property
    def label(self) -> str:
        """``tumour`` where the slide holds any tumour, else ``normal``."""
        return "tumour" if self.region_px[2] else "normal"


def companion_paths(path: Path) -> tuple[Path, Path]:
    """Paths of the regions and the evidence that belong to a slide at ``path``."""
    return (
        path.with_name(f"{path.stem}_regions.tif"),
        path.with_name(f"{path.stem}_evidence.tif"),
    )


def write_slide(
    spec: SyntheticSlideSpec,
    path: str | Path,
    *,
    band: int = BLOCK,
    progress: Callable[[int, int], None] | None = None,
) -> SlideFiles:
    """Writes ``NAME.tif``, ``NAME_regions.tif`` and ``NAME_evidence.tif``.

    Memory grows with the slide's width, not with its height. The files get their names only when
    all three are complete, the slide last.

    Args:
        spec: the slide.
        path: the slide's file, ending in ``.tif``; its folder is made where missing.
        band: rows rendered at a time, in pixels; of no effect on the result.
        progress: called with (rows done, rows in all) after each band.

    Raises:
        OutputError: the folder or a file cannot be written.
        ValueError: a path that does not end in ``.tif``, or a band without rows.
    """
    path = Path(path)
    if path.suffix != ".tif":
        raise ValueError(f"a synthetic slide's name ends in .tif, got {path.name}")
    if band < 1:
        raise ValueError(f"band must be at least 1 row, got {band}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _write(spec, path, band, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot write the synthetic slide: {reason}") from error


def _write(
    spec: SyntheticSlideSpec,
    path: Path,
    band: int,
    progress: Callable[[int, int], None] | None,
) -> SlideFiles:
    width, height = spec.size_px
    rng = np.random.default_rng([spec.seed, _KIND_QUALITY])
    quality = int(rng.integers(90, 96))
    regions_path, evidence_path = companion_paths(path)
    count = np.zeros(3, np.int64)
    with ExitStack() as stack:
        rgb, regions, evidence = (
            stack.enter_context(
                PyramidWriter(path.parent, spec.size_px, spec.mpp, channels, quality)
            )
            for channels in (3, 1, 1)
        )
        for top in range(0, height, band):
            part = render(spec, 0, top, width, min(band, height - top))
            rgb.add(part.rgb)
            regions.add(part.regions)
            evidence.add(part.evidence)
            count += np.bincount(part.regions.ravel(), minlength=3)
            if progress is not None:
                progress(min(top + band, height), height)
        # The slide comes last: where it has its name, its ground truth is there too.
        outputs = ((regions, regions_path), (evidence, evidence_path), (rgb, path))
        drafts = [draft_path(final) for _, final in outputs]
        try:
            for (writer, _), draft in zip(outputs, drafts, strict=True):
                writer.write(draft)
            for (_, final), draft in zip(outputs, drafts, strict=True):
                draft.replace(final)
        finally:
            for draft in drafts:
                draft.unlink(missing_ok=True)
    return SlideFiles(
        path, regions_path, evidence_path, (int(count[0]), int(count[1]), int(count[2]))
    )
