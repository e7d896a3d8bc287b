"""Networks of a study as configs list them."""

from typing import Any

import pytest

from bcos_vit.errors import UnknownModelError
from bcos_vit.models import create_model
from pathology.benchmark.backbones import Backbone, make_backbones


def test_a_twin_stands_beside_its_network() -> None:
    ours, twin = make_backbones(
        [
            {
                "model": "bcos_vit_tiny_patch8_224",
                "model_args": {"img_size": 32, "depth": 2},
                "training": {"lr": 3e-4, "epochs": 5},
                "twin": {"training": {"lr": 1e-3}},
            }
        ]
    )
    assert (ours.family, ours.architecture, ours.name) == (
        "bcos", "vit", "bcos_vit_tiny_patch8_224",
    )  # fmt: skip
    assert (twin.family, twin.architecture, twin.model) == (
        "conventional", "vit", "vit_tiny_patch16_224",
    )  # fmt: skip
    assert ours.pair == twin.pair == "vit_tiny_patch8_224" == twin.name
    assert twin.training == {"lr": 1e-3, "epochs": 5}
    # Of the twin table, whose depth is the network's own, and ours win.
    assert twin.model_args["patch_size"] == 8
    assert twin.model_args["depth"] == 2
    parts = [create_model(b.model, num_classes=2, **b.model_args) for b in (ours, twin)]
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert abs(counts[0] - counts[1]) < 0.05 * counts[1]


def test_a_name_is_enough() -> None:
    made = make_backbones(["bcos_resnet18", "resnet18"])
    assert [(b.family, b.architecture, b.pair) for b in made] == [
        ("bcos", "cnn", "resnet18"),
        ("conventional", "cnn", "resnet18"),
    ]


def test_own_settings_win_under_the_verbs_names() -> None:
    backbone = Backbone("a", "resnet18", training={"lr": 2e-3, "model.weight_decay": 0.1})
    found = backbone.settings({"epochs": 3, "lr": 1e-3, "patience": 2})
    assert found == {
        "trainer.max_epochs": 3,
        "model.lr": 2e-3,
        "model.weight_decay": 0.1,
        "patience": 2,
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model": "resnet18", "training": {"epoch": 3}}, "did you mean epochs"),
        ({"model": "resnet18", "args": {}}, "no key 'args'; keys are model, name"),
        ({"name": "mine"}, "no model"),
        ({"model": "bcos_resnet18", "twin": {"lr": 1e-3}}, "twin of bcos_resnet18: no key 'lr'"),
    ],
)
def test_wrong_entries_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_backbones([entry])


def test_two_of_one_name_and_unknown_twins_are_refused() -> None:
    with pytest.raises(ValueError, match="two are called 'resnet18'"):
        make_backbones(["resnet18", {"model": "bcos_resnet18", "twin": True}])
    with pytest.raises(UnknownModelError, match="has no conventional twin"):
        make_backbones([{"model": "resnet18", "twin": True}])
