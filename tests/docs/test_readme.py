"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch
from PIL import Image

README = Path(__file__).parents[2] / "README.md"


def test_the_python_example_of_a_tile_runs(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64), (180, 90, 150)).save(tmp_path / "tile.png")
    monkeypatch.chdir(tmp_path)
    _, code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    explanation = names["explanation"]
    gap = explanation.contributions.sum() + explanation.bias - explanation.logit
    assert torch.isclose(gap.abs().double(), explanation.completeness_gap, atol=1e-6)
    assert explanation.weights.shape == (6, 64, 64)


def test_every_verb_and_script_it_names_exists():
    from pathology.cli import VERBS

    text = README.read_text()
    assert set(re.findall(r"\$ pathology (\w+)", text)) <= set(VERBS)
    for name in re.findall(r"scripts/(\w+)", text):
        assert list((README.parent / "scripts").glob(f"{name}*")), name
