"""The page on studies: its Python runs, and it names every method, group of metrics and config."""

import re
from pathlib import Path

from bcos_vit.attribution import METHODS
from pathology.benchmark.study.measures import GROUPS, METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmark.md").read_text()


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE).group(1)


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| `")]


def test_its_python_runs():
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["found"].maps.shape == (2, 64, 64)
    assert float(names["found"].completeness_gap.max()) < 1e-5


def test_it_names_every_method():
    named = {
        name
        for row in rows(section("Methods"))
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    }
    assert named == set(METHODS)


def test_it_names_every_group_and_only_metrics_that_there_are():
    table = rows(section("Metrics"))
    groups = [name for row in table for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert set(groups) == set(GROUPS)
    known = {name for metrics in METRICS.values() for name in metrics}
    named = {name for row in table for name in re.findall(r"`([^`]+)`", row.split("|")[3])}
    assert named <= known


def test_it_names_every_config():
    named = {Path(name).name for name in re.findall(r"configs/benchmark/\w+\.yaml", PAGE)}
    assert named == {path.name for path in (ROOT / "configs" / "benchmark").glob("*.yaml")}
