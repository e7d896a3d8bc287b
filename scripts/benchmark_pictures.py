"""Small figures and tables of studies for the docs.

::

    pathology benchmark --config configs/benchmark/small.yaml --out runs/report
    python scripts/benchmark_pictures.py --report runs/report --config configs/benchmark/small.yaml

Writes ``docs/images/STUDY_*.png`` and prints the reading and the first tables in Markdown.
Start it where the study was run: paths of data are relative.
"""

import argparse
from pathlib import Path

import pandas as pd

from pathology.benchmark.report import reading_markdown, table_markdown, write_figures
from pathology.benchmark.report.results import find_study
from pathology.benchmark.study.config import load_study
from pathology.benchmark.study.gathering import RESULTS, pictures
from pathology.benchmark.study.place import Place

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, required=True, help="what --out was")
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="the studies in it")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--dpi", type=int, default=90)
    options = parser.parse_args()
    results = pd.read_parquet(options.report / RESULTS)
    for path in options.config:
        config = load_study(path)
        study = find_study(results, config.name)
        shown = pictures(Place(config, options.report, "cpu"))
        if config.pictures and config.data and not shown:
            parser.error(f"{path}: no maps in {options.report}; start it where the study was run")
        for image in write_figures(study, shown, options.images, options.dpi):
            print(f"{image}  {image.stat().st_size / 1024:.0f} KB")
        print(f"\n## {config.title}\n\n{reading_markdown(results, config.name)}\n")
        print(table_markdown(results, config.name))


if __name__ == "__main__":
    main()
