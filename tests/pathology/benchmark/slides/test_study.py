"""A study of slides from end to end, resumed; its settings."""

import functools
import operator
import re

import pytest
import torch

from pathology.benchmark.slides import bags, study
from pathology.benchmark.slides.study import SlideStudy, read_slide_study, run_slides
from pathology.benchmark.slides.tile_methods import NAMES

ENCODER = "bcos_vit_tiny_patch16_224"
WORDS = {
    "encoder": ENCODER,
    "encoder_seed": 0,
    "encoder_args": {"img_size": 32, "depth": 1},
    "aggregators": ["bcos_gated_sum", "abmil"],
    "slides": {"train": 2, "val": 2, "test": 2},
    "bag": {"size_px": 160, "tile_px": 32, "tumour": [0.5, 0.6]},
    "hidden": 4,
    "epochs": 2,
    "rates": [0.01],
    "device": "cpu",
}


def test_from_end_to_end_and_again(tmp_path, monkeypatch):
    settings = read_slide_study(WORDS)
    said = []

    def progress(steps, total, what):
        said.append((what, total))
        return steps

    values = run_slides(settings, tmp_path, progress)
    assert said[0] == ("slides", 6)
    assert {value.backbone for value in values} == {"bcos_gated_sum", "abmil"}
    methods = {value.method for value in values if value.backbone == "bcos_gated_sum"}
    assert methods == {"", *NAMES}

    def never(*arguments, **options):
        raise AssertionError("made again")

    monkeypatch.setattr(bags, "render", never)
    monkeypatch.setattr(study, "train_aggregator", never)
    with monkeypatch.context() as whole:
        whole.setattr(study, "slide_values", never)
        again = run_slides(settings, tmp_path)
    assert [repr(value) for value in again] == [repr(value) for value in values]
    # Other methods need no other bags or weights; the weights that were kept are the same.
    few = run_slides(read_slide_study({**WORDS, "methods": ["removal"]}), tmp_path)
    for metric in ("AUROC of slides", "AP of lesion tiles"):
        expected = [v.value for v in values if v.metric == metric and v.method in ("", "removal")]
        assert [v.value for v in few if v.metric == metric] == pytest.approx(expected)
    labelled = run_slides(read_slide_study({**WORDS, "label": "tiny"}), tmp_path)
    assert {value.backbone for value in labelled} == {"tiny, bcos_gated_sum", "tiny, abmil"}


def test_names_of_slides_say_what_they_are():
    settings = SlideStudy(ENCODER, slides={"train": 4, "val": 2, "test": 3})
    assert settings.names == {
        "train_normal_000": False, "train_lesion_000": True, "train_normal_001": False,
        "train_lesion_001": True, "val_normal_000": False, "val_lesion_000": True,
        "test_normal_000": False, "test_lesion_000": True, "test_normal_001": False,
    }  # fmt: skip
    assert sum(not has for has in SlideStudy(ENCODER).names.values()) >= 20 + 16 + 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": "x"}, "slides.encoders: no such key; did you mean encoder?"),
        ({"bag": {"size": 3}}, "slides.bag.size: no such key; did you mean size_px?"),
        ({"bag": 3}, "slides.bag: got 3"),
        ({"encoder": " "}, "encoder: wanted the folder of a run on tiles, got ' '"),
        ({"aggregators": ["abmill"]}, "did you mean abmil?"),
        ({"aggregators": []}, "there must be one"),
        ({"methods": ["gradcam"]}, "methods must be of"),
        ({"methods": []}, "there must be methods"),
        ({"slides": {"train": 2}}, "wanted numbers for train, val, test"),
        ({"slides": {"train": 2, "val": 2, "test": 1}}, "slides.test: at least 2"),
        ({"slides": {"train": 2.5, "val": 2, "test": 2}}, "slides.train: at least 2"),
        ({"epochs": 0}, "epochs: wanted a whole number from 1 up, got 0"),
        ({"epochs": 1.5}, "epochs: wanted a whole number from 1 up, got 1.5"),
        ({"hidden": 1}, "hidden: wanted a whole number from 2 up, got 1"),
        ({"hidden": 12, "aggregators": ["transmil"]}, "hidden: transmil cannot have 12"),
        ({"bag": {"tile_px": 32.0}}, "tile_px"),
        ({"bag": {"tumour": 0.1}}, "tumour"),
        ({"rates": [0]}, "rates"),
        ({"seed": -1}, "seed"),
        ({"encoder": {"model": "x"}}, "encoder: wanted the folder of a run on tiles, got {'model'"),
        ({"slides": 3}, "slides: "),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_slide_study({**WORDS, **change})


def test_an_encoder_is_needed():
    with pytest.raises(ValueError, match="encoder: missing"):
        read_slide_study({key: value for key, value in WORDS.items() if key != "encoder"})


def test_an_encoder_is_a_run_or_has_a_seed(tmp_path):
    settings = read_slide_study({**WORDS, "encoder": "no/such/run", "encoder_seed": None})
    with pytest.raises(ValueError, match="no folder 'no/such/run'"):
        run_slides(settings, tmp_path)


def test_features_are_scaled_by_one_number():
    import numpy as np

    from pathology.benchmark.slides.training import common_scale
    from tests.pathology.benchmark.slides.made import planted_bag

    made = [planted_bag(str(i), 2, np.random.default_rng(i)) for i in range(3)]
    everything = functools.reduce(operator.add, [bag.features.flatten().tolist() for bag in made])
    expected = torch.tensor(everything, dtype=torch.float64).square().mean().sqrt()
    assert common_scale(made) == pytest.approx(float(expected))
