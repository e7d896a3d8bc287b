"""The page of dense evaluation: figures are those measured, its Python runs."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from bcos_vit.models import create_model
from bcos_vit.models.receptive_field import required_halo

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "dense.md").read_text()


def test_halos_and_what_they_cost_are_as_said():
    rows = re.findall(r"^\| (`bcos_.*`) \| (\d+) \| (\d+) \|$", TEXT, re.MULTILINE)
    halos = {name: int(halo) for names, halo, _ in rows for name in re.findall(r"`(\S+)`", names)}
    assert len(halos) >= 9
    for _, halo, times in rows:
        assert int(times) == round(((224 + 2 * int(halo)) / 224) ** 2)
    # The others take minutes, and are of the same families.
    for name in ("bcos_resnet18", "bcos_resnet50"):
        assert required_halo(create_model(name, num_classes=2)) == halos[name]


@pytest.mark.parametrize(
    ("table", "first", "columns"),
    [
        ("dense_cost.csv", "way", ["scoring", "explaining"]),
        (
            "seams.csv",
            "map",
            ["tiles", "val_auroc", "values_tile", "values_stride", "steps_tile", "steps_stride"],
        ),
    ],
)
def test_tables_are_those_measured(table, first, columns):
    stored = pd.read_csv(DOCS / table, dtype=str)
    if "what" in stored:
        stored = stored.pivot(index=first, columns="what", values="ratio").reset_index()
    for _, row in stored.iterrows():
        wanted = "| " + " | ".join([row[first], *(row[name] for name in columns)]) + " |"
        assert wanted in TEXT


def test_its_python_runs():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    names = {"images": torch.rand(1, 6, 672, 672), "block": torch.rand(1, 6, 672, 896)}
    exec(code, names)
    assert names["logits"].shape == (1, 2)
    assert float(names["explanation"].completeness_gap.max()) < 1e-3
    assert names["together"].shape == (1, 2, 1, 8)
