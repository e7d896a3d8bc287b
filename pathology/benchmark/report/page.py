"""The page of one or several studies: whole in itself, the answer first, the numbers behind it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from pathology.benchmark.report.pictures import Picture
from pathology.benchmark.report.results import read_studies
from pathology.benchmark.report.sections import section
from pathology.outputs import complete_file
from pathology.pages import page_template

TEMPLATE = Path(__file__).with_name("templates") / "page.html.j2"
PACKAGES = ("bcos-pathology", "torch", "timm", "lightning", "captum", "numpy", "scipy", "pandas")


def write_page(
    results: pd.DataFrame,
    pictures: Sequence[Picture],
    out: Path,
    commands: Sequence[str],
    title: str = "Benchmark of explanations",
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the page.

    Args:
        results: columns :data:`~pathology.benchmark.study.rows.COLUMNS`, of one or several studies.
        pictures: example maps, the same examples for every method.
        out: file to write; an existing one is replaced.
        commands: that made the results, as they can be run again.
        title: above it.
        provenance: further words about what made this; versions are there anyway.

    Returns:
        ``out``.

    Raises:
        ValueError: results that lack columns or say two things of one value.
        OutputError: the file cannot be written.
    """
    html = render_page(results, pictures, commands, title, provenance)
    with complete_file(Path(out)) as draft:
        draft.write_text(html, encoding="utf-8")
    return Path(out)


def render_page(
    results: pd.DataFrame,
    pictures: Sequence[Picture],
    commands: Sequence[str],
    title: str = "Benchmark of explanations",
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The HTML that :func:`write_page` writes."""
    studies = read_studies(results)
    return page_template(TEMPLATE).render(
        title=title,
        studies=[section(study, pictures) for study in studies],
        commands=list(commands),
        provenance={**(provenance or {}), **_versions()},
    )


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
