"""``pathology froc``: detections of lesions, scored as CAMELYON16 does."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    import pandas as pd


def froc(
    detections: Path,
    slides: Path,
    lesions: list[str] | None = None,
    split: str | None = None,
    mpp: float | None = None,
    repeats: int = 1000,
    out: Path | None = None,
) -> int:
    """Score detections of lesions: FROC and the CAMELYON16 score, with 95 % intervals.

    Lesions closer than 75 um are one. Those under 275 um (isolated tumour cells) count neither way.
    The score is the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide, over all
    slides. Intervals are by bootstrap over patients, or slides where none are known.

    Args:
        detections: CSV with columns slide_id, x, y (level-0 pixels) and score (positive; higher is
            surer).
        slides: manifest (slides.csv) with a `regions` column and regions.json beside it; a slide
            with an empty cell has no lesion.
        lesions: classes of regions.json that are lesions; all when omitted.
        split: only slides of this split.
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        repeats: bootstrap draws.
        out: JSON file for the score, the curve and what each slide came to.
    """
    from tqdm import tqdm

    from pathology.annotations import read_classes, read_regions
    from pathology.annotations.regions import check_names
    from pathology.data.slide_list import list_slides, slide_mpp
    from pathology.errors import ManifestError
    from pathology.metrics.froc import count_hits, find_lesions, lesion_mask
    from pathology.metrics.froc import froc as score
    from pathology.outputs import complete_file
    from pathology.slides import open_slide

    table = list_slides(slides, mpp)
    if "regions" not in table:
        raise ManifestError(
            f"{slides}: no column 'regions'; it says where each slide's lesions are"
        )
    classes = read_classes(slides.parent / "regions.json")
    names = check_names(list(classes), lesions)
    if split is not None:
        if "split" not in table or not (table["split"] == split).any():
            raise ManifestError(f"{slides}: no slide of split {split!r}")
        table = table[table["split"] == split].reset_index(drop=True)
    found = _read_detections(detections)
    unknown = set(found["slide_id"]) - set(table["slide_id"])
    if unknown and split is None:
        raise ManifestError(
            f"{detections}: slide {sorted(unknown)[0]!r} is not in {slides}; add it, or leave its"
            " detections out"
        )
    hits, rows = [], []
    entries: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    for row in tqdm(entries, desc="slides", unit="slide", leave=False):
        with open_slide(row["path"], slide_mpp(row)) as slide:
            regions = read_regions(row["regions"], slide, classes) if row["regions"] else None
            there = None
            if regions is not None:
                there = find_lesions(lesion_mask(regions, slide.size, slide.mpp, names))
        mine = found[found["slide_id"] == row["slide_id"]]
        x, y, scores = (mine[name].to_numpy() for name in ("x", "y", "score"))
        hits.append(count_hits(there, x, y, scores))
        rows.append(
            {
                "slide_id": row["slide_id"],
                "lesions": hits[-1].targets,
                "too_small": 0 if there is None else len(there.excluded),
                "detections": len(mine),
                "false_positives": len(hits[-1].false),
                "found": int((hits[-1].found > 0).sum()),
            }
        )
    groups = None
    if "patient_id" in table:
        groups = [
            patient or slide
            for patient, slide in zip(table["patient_id"], table["slide_id"], strict=True)
        ]
    result = score(hits, groups, repeats=repeats)
    by = "slides" if groups is None else "patients"
    print(
        f"{detections}: {result.lesions} lesions and {len(found)} detections on {result.slides}"
        f" slides, 95 % intervals over {by}"
    )
    print(f"  {'CAMELYON16 score':<32} {result.score}")
    for false, estimate in result.sensitivities.items():
        print(f"  {f'sensitivity at {false:g} false/slide':<32} {estimate}")
    if out is not None:
        record = {
            "detections": str(detections),
            "slides": str(slides),
            "lesions": list(names),
            "score": result.score.record(),
            "sensitivity_at": {f"{k:g}": v.record() for k, v in result.sensitivities.items()},
            "curve": {
                "false_positives_per_slide": result.false_per_slide.tolist(),
                "sensitivity": result.sensitivity.tolist(),
            },
            "by_slide": rows,
        }
        with complete_file(out) as draft:
            draft.write_text(json.dumps(record, indent=2))
    return 0


def _read_detections(path: Path) -> "pd.DataFrame":
    """The table of detections, checked.

    Raises:
        ManifestError: it cannot be read, or has cells that make no sense.
    """
    import numpy as np
    import pandas as pd

    from pathology.errors import ManifestError

    wanted = ["slide_id", "x", "y", "score"]
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ManifestError(f"{path}: cannot be read: {reason}") from error
    if missing := [name for name in wanted if name not in table]:
        raise ManifestError(f"{path}: column {missing[0]!r} is missing; wanted {', '.join(wanted)}")
    for name in wanted[1:]:
        table[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(table[name]) | ((table[name] <= 0) & (name == "score"))
        if wrong.any():
            row = int(np.argmax(wrong)) + 2
            what = "a positive number" if name == "score" else "a number"
            raise ManifestError(f"{path}: row {row} has no {name} that is {what}")
    table["slide_id"] = table["slide_id"].str.strip()
    if (table["slide_id"] == "").any():
        row = int(np.argmax(table["slide_id"] == "")) + 2
        raise ManifestError(f"{path}: row {row} has no slide_id")
    return table[wanted]


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(froc, arguments)
