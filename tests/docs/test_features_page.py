"""The recipes of docs/features.md: architectures as published, without their weights."""

from pathlib import Path

import pytest
import torch
from torch import nn

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


@pytest.fixture
def recipes(monkeypatch):
    """What the page's longest block of Python defines, with weights that are not there."""
    blocks = PAGE.read_text().split("```python\n")[1:]
    source = max((block.partition("```")[0] for block in blocks), key=len)
    monkeypatch.setattr(torch, "load", lambda *_, **__: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_, **__: None)
    names = {"__name__": "my_encoders"}
    exec(compile(source, str(PAGE), "exec"), names)
    return names


@pytest.mark.parametrize(("name", "millions"), [("uni", 303.4), ("uni2", 681.4)])
def test_uni_is_built_as_published(recipes, name, millions):
    with torch.device("meta"):
        made = recipes[name]()
        features = made.module(torch.empty(2, 3, made.size_px, made.size_px))
    assert features.shape == (2, made.dims)
    count = sum(parameter.numel() for parameter in made.module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


def test_virchows_features_are_its_class_token_and_the_mean_of_its_patches(recipes):
    class Tokens(nn.Module):
        def forward(self, images):
            return images

    tokens = torch.randn(2, 5 + 7, 4)
    made = recipes["ClassAndMean"](Tokens(), first_patch=5)(tokens)
    torch.testing.assert_close(made, torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1))
