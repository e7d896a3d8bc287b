"""A small cohort of synthetic slides with a manifest, ready for training and benchmarks."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pathology.errors import OutputError
from pathology.outputs import complete_file
from pathology.synthetic.layout import NORMAL, TUMOUR
from pathology.synthetic.spec import SyntheticSlideSpec
from pathology.synthetic.write import companion_paths, write_slide

VERSION = 1
"""Goes up when the same specification gives other pixels, so that old slides are made anew."""

COLUMNS = ("slide_id", "patient_id", "path", "split", "label", "regions", "evidence")


def make_cohort(
    out: str | Path,
    train: int = 4,
    val: int = 1,
    test: int = 1,
    size_px: tuple[int, int] = (4096, 4096),
    mpp: float = 0.5,
    seed: int = 0,
    *,
    tumour_fraction: float = 0.5,
    normal_slides: tuple[int, int, int] = (0, 0, 0),
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Writes slides, one per patient, and the table that lists them.

    A slide that is finished and was made by the same specification is kept; others are made anew.

    Args:
        out: folder; made where missing.
        train: slides for training, each with both classes of tissue (of about 0.3 mm and more).
        val: slides for validation, the same.
        test: slides for testing, the same.
        size_px: (width, height) of each slide.
        mpp: micrometres per pixel.
        seed: cohorts of different seeds share no slide.
        tumour_fraction: share of tumour in the tissue of those slides.
        normal_slides: further slides without tumour per split, for labels of whole slides.
        progress: called with (slide, rows done, rows in all).

    Returns:
        Path of ``slides.csv``; its paths are relative to its folder, and ``regions.json`` beside it
        names the values of the regions.

    Raises:
        OutputError: a file cannot be written.
        ValueError: a negative number of slides, or a specification out of range.
    """
    if min(train, val, test, *normal_slides) < 0:
        raise ValueError("numbers of slides must be at least 0")
    out = Path(out)
    splits = ("train", "val", "test")
    rows = []
    for number, (split, mixed, normal) in enumerate(
        zip(splits, (train, val, test), normal_slides, strict=True)
    ):
        for i in range(mixed + normal):
            # Seeds are spread so that growing one split leaves the slides of the others as they
            # were, and so that no two cohorts of small seeds meet.
            is_mixed = i < mixed
            place = i if is_mixed else 50_000 + i - mixed
            spec = SyntheticSlideSpec(
                seed=seed * 1_000_000 + number * 100_000 + place,
                size_px=size_px,
                mpp=mpp,
                tumour_fraction=tumour_fraction if is_mixed else 0.0,
            )
            name = f"{split}_{i:03d}" if is_mixed else f"{split}_normal_{i - mixed:03d}"
            label = _slide(out / f"{name}.tif", spec, name, progress)
            companions = [p.name for p in companion_paths(out / f"{name}.tif")]
            rows.append((name, f"patient_{name}", f"{name}.tif", split, label, *companions))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(rows)
    _put(out / "regions.json", json.dumps({"normal": NORMAL, "tumour": TUMOUR}) + "\n")
    _put(out / "slides.csv", text.getvalue())
    return out / "slides.csv"


def _slide(
    path: Path,
    spec: SyntheticSlideSpec,
    name: str,
    progress: Callable[[str, int, int], None] | None,
) -> str:
    """Makes one slide unless it is there already; returns its label."""
    stamp = path.with_name(f"{path.stem}.json")
    wanted = json.loads(json.dumps({"version": VERSION, "spec": asdict(spec)}))
    files = (path, *companion_paths(path))
    try:
        found = json.loads(stamp.read_text())
        if (
            {key: found[key] for key in wanted} == wanted
            and found["bytes"] == [p.stat().st_size for p in files]
            and found["label"] in ("normal", "tumour")
        ):
            return str(found["label"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        # A stamp must never describe files that are about to change.
        stamp.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{stamp}: cannot be replaced: {error.strerror}") from error
    made = write_slide(
        spec, path, progress=None if progress is None else lambda a, b: progress(name, a, b)
    )
    sizes = [p.stat().st_size for p in files]
    _put(stamp, json.dumps(wanted | {"label": made.label, "bytes": sizes}, indent=1) + "\n")
    return made.label


def _put(path: Path, text: str) -> None:
    """Writes a small file all at once."""
    with complete_file(path) as draft:
        draft.write_text(text)
