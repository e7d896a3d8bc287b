"""Rows of the speed benchmark: real runs at small sizes, none of whose times matters."""

import pytest
import torch

from bcos_vit.errors import UnknownModelError
from bcos_vit.models import TWINS
from pathology.benchmark import SpeedBenchmark, met, target, timing
from pathology.benchmark.measures import MEASURES
from pathology.benchmark.speed import MODELS, as_in_use
from pathology.benchmark.table import FIELDS
from pathology.errors import PathologyError

VIT, RESNET = "bcos_vit_tiny_patch16_224", "bcos_resnet18"


def small(**options):
    defaults = {"models": [VIT], "size_px": 32, "batch": 1, "seconds": 0, "device": "cpu"}
    return SpeedBenchmark(**(defaults | {"modes": ["eager"]} | options))


@pytest.fixture(scope="module")
def rows():
    """All eager rows of a CNN and a ViT, in one layout, by model and measure."""
    benchmark = small(models=[VIT, RESNET], layouts=["contiguous"], classes=3, size_px=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "WARM_UP", 1)
        patch.setattr(timing, "LEAST_ROUNDS", 2)
        found = list(benchmark.measure(benchmark.cells))
    return {(row["model"], row["measure"]): row for row in found}


def test_there_is_a_row_for_every_measure(rows):
    assert {measure for _, measure in rows} == set(MEASURES)
    assert len(rows) == 2 * len(MEASURES)
    for row in rows.values():
        assert tuple(row) == FIELDS
        assert float(row["ours"]) > 0
        assert float(row["theirs"]) > 0
        assert float(row["ratio_low"]) <= float(row["ratio"]) <= float(row["ratio_high"])
        assert row["dtype"] == "float32"


def test_it_says_what_was_explained_and_how_deep(rows):
    for model, depth in ((VIT, "blocks.10"), (RESNET, "layer3")):
        found = {m: (row["classes"], row["depth"]) for (of, m), row in rows.items() if of == model}
        assert found["explain_class"] == ("1", "pixels")
        assert found["explain_classes"] == ("3", "pixels")
        assert found["explain_head"] == ("3", "head")
        assert found["explain_16px"] == ("1", depth)
        assert found["inference"] == ("", "")


def test_memory_does_not_grow_with_the_number_of_classes(rows):
    for model in (VIT, RESNET):
        assert float(rows[model, "explain_classes_memory"]["ratio"]) <= 1.05


def test_memory_is_for_a_batch_and_for_each_image():
    benchmark = small(batch=2, measures=["kept_memory", "training_memory"])
    kept, peak = benchmark.measure(benchmark.cells)
    # What is held once, weights of unit length among it, is no image's.
    assert 0 < 2 * float(kept["ours_per_image"]) <= float(kept["ours"])
    ratio = float(kept["ours_per_image"]) / float(kept["theirs_per_image"])
    assert float(kept["ratio"]) == pytest.approx(ratio, rel=2e-3)  # four digits are written
    assert float(peak["ours_per_image"]) == pytest.approx(float(peak["ours"]) / 2, rel=1e-3)


def test_token_networks_have_one_layout_and_explanations_one_mode():
    benchmark = SpeedBenchmark(models=[VIT, RESNET], measures=["inference", "explain_class"])
    cells = [(cell.model, cell.measure, cell.mode, cell.layout) for cell in benchmark.cells]
    assert cells == [
        (VIT, "inference", "eager", "contiguous"),
        (VIT, "explain_class", "eager", "contiguous"),
        (VIT, "inference", "compiled", "contiguous"),
        (RESNET, "inference", "eager", "contiguous"),
        (RESNET, "explain_class", "eager", "contiguous"),
        (RESNET, "inference", "compiled", "contiguous"),
        (RESNET, "inference", "eager", "channels_last"),
        (RESNET, "explain_class", "eager", "channels_last"),
        (RESNET, "inference", "compiled", "channels_last"),
    ]


def test_its_models_have_twins():
    assert set(MODELS) <= set(TWINS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["infrence"]}, "measures: there is no 'infrence'; did you mean inference"),
        ({"modes": ["jit"]}, "modes: there is no 'jit'; one of eager, compiled"),
        ({"layouts": ["channel_last"]}, "did you mean channels_last"),
        ({"classes": 0}, "classes must be at least 1, got 0"),
        ({"size_px": -1}, "size_px must be at least 1, got -1"),
        ({"seconds": float("nan")}, "seconds must be at least 0, got nan"),
        ({"layouts": ["channels_last"]}, "nothing to measure"),
        ({"modes": ["compiled"], "measures": ["explain_class"]}, "nothing to measure"),
        ({"device": "tpu"}, "device 'tpu' cannot be used: "),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_a_model_without_a_twin_is_refused():
    with pytest.raises(UnknownModelError, match="'bcos_resnet19' has no twin here; did you mean"):
        small(models=["bcos_resnet19"])


def test_a_model_that_cannot_be_compiled_is_named(monkeypatch):
    def no_compiler(network, **options):
        def run(x):
            raise torch._dynamo.exc.TorchDynamoException("no compiler\nin sight")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    benchmark = small(modes=["compiled"], measures=["inference"])
    with pytest.raises(PathologyError, match=rf"{VIT} .* \(no compiler\); --modes eager"):
        list(benchmark.measure(benchmark.cells))


def test_threads_and_precision_are_put_back():
    before = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with as_in_use(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert not torch.backends.cudnn.allow_tf32
    assert (torch.get_num_threads(), torch.backends.cudnn.allow_tf32) == before


# --- targets


@pytest.mark.parametrize(
    ("row", "bar"),
    [
        ({"measure": "inference"}, 1.05),
        ({"measure": "training_step", "mode": "compiled"}, 1.12),
        ({"measure": "inference", "device": "cuda"}, None),
        ({"measure": "inference", "device": "cuda", "mode": "compiled"}, 1.15),
        ({"measure": "training_step", "device": "cuda", "mode": "compiled"}, 1.35),
        ({"measure": "kept_memory", "device": "cuda"}, 1.2),
        ({"measure": "training_memory"}, None),
        ({"measure": "explain_class"}, 2.4),
        ({"measure": "explain_class", "model": VIT}, 2.1),
        ({"measure": "explain_classes", "classes": "8"}, 11.4),
        ({"measure": "explain_head"}, 1.05),
        ({"measure": "explain_16px"}, 1.35),
    ],
)
def test_targets(row, bar):
    row = {"model": RESNET, "device": "cpu", "mode": "eager", "classes": ""} | row
    assert target(row) == (None if bar is None else pytest.approx(bar))
    assert met(row | {"ratio": "0.9"}) == (None if bar is None else True)
    assert met(row | {"ratio": "20"}) == (None if bar is None else False)


@pytest.mark.gpu
def test_on_a_gpu_compiled_networks_are_in_bfloat16_and_explanations_in_float32():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    benchmark = small(
        models=[RESNET], modes=["eager", "compiled"], size_px=64, batch=4, classes=2, device="cuda"
    )
    rows = list(benchmark.measure(benchmark.cells))
    assert {(row["device"], row["mode"], row["dtype"]) for row in rows} == {
        ("cuda", "eager", "float32"),
        ("cuda", "compiled", "bfloat16"),
    }
    assert all(float(row["ours"]) > 0 for row in rows)
