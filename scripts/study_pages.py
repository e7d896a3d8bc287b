r"""The committed pages of studies: what `report.html` says first, as Markdown with small figures.

::

    pathology benchmark --config configs/benchmark/small.yaml --out report --jobs 2
    python scripts/study_pages.py --report report --config configs/benchmark/small.yaml \
        --took "28 minutes on two cores"

Writes ``docs/reports/STUDY.md`` and ``docs/images/reports/STUDY_*.png``. Start it where the study
was run: paths of data are relative.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bcos_vit import __version__
from pathology.benchmark.report import reading_markdown, table_markdown, write_figures
from pathology.benchmark.report.results import find_study
from pathology.benchmark.study.config import Study, load_study
from pathology.benchmark.study.gathering import RESULTS, pictures
from pathology.benchmark.study.place import Place
from pathology.outputs import complete_file

ROOT = Path(__file__).parents[1]
IMAGES = Path("images") / "reports"
CAPTIONS = {
    "dots": "Headline metrics of each method on each network: mean and 95 % interval by patient.",
    "ranks": "Mean ranks over networks; methods that a bar joins are not told apart (Nemenyi).",
    "cost": "What a map costs, and what it is worth by the first headline metric.",
    "maps": "The same tiles by each method, a row on one scale; outlined: evidence or mark.",
}


def caption(image: Path, study: str) -> str:
    """What a figure shows, by its name."""
    kind, _, of = image.stem.removeprefix(f"{study}_").partition("_")
    return f"`{of}`: {CAPTIONS[kind]}" if of else CAPTIONS[kind]


def page(results: pd.DataFrame, config: Study, path: str, took: str, images: Sequence[Path]) -> str:
    """The whole page."""
    shown = "\n\n".join(
        f"![{image.stem.replace('_', ' ')}](../{IMAGES.as_posix()}/{image.name})\n\n"
        f"{caption(image, config.name)}"
        for image in images
    )
    return f"""# {config.title}

Written by `scripts/study_pages.py` from a study's results; do not edit. How to read it:
[benchmark.md](../benchmark.md).

```console
$ pathology benchmark --config {path} --out report --jobs 2
```

Version {__version__}; {took}.

## Reading

{reading_markdown(results, config.name)}

## Figures

{shown}

## Tables

{table_markdown(results, config.name)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True, help="what --out was")
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="the studies in it")
    parser.add_argument("--took", required=True, help="how long on what, to be told on the page")
    parser.add_argument(
        "--no-maps-of", nargs="*", default=[], help="SET, of no open licence, or SET_NETWORK"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--dpi", type=int, default=90)
    options = parser.parse_args()
    results = pd.read_parquet(options.report / RESULTS)
    for path in options.config:
        config = load_study(path)
        study = find_study(results, config.name)
        kept = pictures(Place(config, options.report, "cpu"))
        left_out = set(options.no_maps_of)
        shown = [p for p in kept if left_out.isdisjoint((p.data, f"{p.data}_{p.backbone}"))]
        if config.pictures and config.data and not shown:
            parser.error(f"{path}: no maps in {options.report}; start it where the study was run")
        (options.docs / IMAGES).mkdir(parents=True, exist_ok=True)
        images = write_figures(study, shown, options.docs / IMAGES, options.dpi)
        for image in images:
            print(f"{image}  {image.stat().st_size / 1024:.0f} KB")
        target = options.docs / "reports" / f"{config.name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(target) as draft:
            draft.write_text(page(results, config, path.as_posix(), options.took, images))
        print(target)


if __name__ == "__main__":
    main()
