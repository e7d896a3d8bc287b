"""A cohort's surveys on one HTML page, to find the slides that need a person's eye.

The page holds its own style and script and asks nobody for anything; the pictures are files beside
it that are loaded when they come into sight, so that thousands of slides open at once.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pathology.outputs import complete_file
from pathology.pages import page_template
from pathology.tissue.artefacts import ARTEFACTS

TEMPLATE = Path(__file__).with_name("templates") / "sheet.html.j2"
LIMITS = {"pen": 0.05, "fold": 0.05, "blur": 0.1, "edge": 0.05, "black": 0.05}
"""Share of the found tissue above which an artefact is flagged."""


def write_sheet(
    rows: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    limits: Mapping[str, float] = LIMITS,
    title: str = "Tissue of a cohort",
) -> Path:
    """Write the page; sortable by every column.

    Args:
        rows: one mapping per slide, of :meth:`Survey.summary`. A row may also have ``"picture"``,
            the file name of its picture relative to the page; ``"tiles"``, how many were cut;
            ``"problem"``, one line that says why the slide was not surveyed, in which case only
            ``"slide_id"`` is needed besides.
        path: file to write; an existing one is replaced.
        limits: share of the found tissue above which each artefact is flagged.
        title: printed above.

    Returns:
        ``path``.

    Raises:
        OutputError: the file cannot be written.
        ValueError: a row without ``"slide_id"``.
    """
    path = Path(path)
    slides = [_slide(row, limits) for row in rows]
    html = page_template(TEMPLATE).render(
        title=title,
        artefacts=ARTEFACTS,
        slides=slides,
        flagged=sum(bool(slide["flags"]) for slide in slides),
        tissue_mm2=sum(slide.get("tissue_mm2") or 0 for slide in slides),
        tiles=sum(slide.get("tiles") or 0 for slide in slides),
        limits=limits,
    )
    with complete_file(path) as draft:
        draft.write_text(html, encoding="utf-8")
    return path


def flags(row: Mapping[str, Any], limits: Mapping[str, float] = LIMITS) -> list[str]:
    """What about a slide wants a look: problems, no tissue, no tiles, too much of an artefact."""
    if row.get("problem"):
        return [str(row["problem"])]
    found = []
    if not row["found_mm2"]:
        found.append("no tissue")
    elif not row["tissue_mm2"]:
        found.append("nothing left without artefacts")
    elif row.get("tiles") == 0:
        found.append("no tiles")
    for name, share in row["artefacts"].items():
        if share is None:
            found.append(f"{name} not judged")
        elif share > limits.get(name, 1.0):
            found.append(f"{name} {100 * share:.0f} %")
    return found


def _slide(row: Mapping[str, Any], limits: Mapping[str, float]) -> dict[str, Any]:
    if "slide_id" not in row:
        raise ValueError(f'every row needs a "slide_id", got {sorted(row)}')
    picture = row.get("picture")
    return {
        **dict.fromkeys(("tissue_mm2", "found_mm2", "tiles", "mpp")),  # of a slide that failed
        **dict.fromkeys(("mpp_source", "finder"), ""),
        **row,
        "flags": flags(row, limits),
        "artefacts": row.get("artefacts") or {},
        # A name may hold what is special in an address, as # and %.
        "picture": quote(str(picture)) if picture else None,
    }
