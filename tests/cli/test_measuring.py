"""Evaluate, calibrate, summarise and froc through the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from pathology.metrics import Calibration, apply_calibration
from pathology.runs.trained import load_trained

CLASSES = ["dark", "grey", "bright"]
MODEL = "bcos_vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of three classes, two patients in each split; and a table without splits."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        label, split = CLASSES[i % 3], ("val", "test")[i // 3 % 2]
        level = 90 + 40 * (i % 3)
        pixels = rng.normal(level, 40, (16, 16, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append((f"{i}.png", label, split, f"{split}_{i // 6 % 4}"))
    table = pd.DataFrame(rows, columns=["file", "label", "split", "patient_id"])
    table.to_csv(folder / "tiles.csv", index=False)
    table[table["split"] == "test"][["file", "label"]].to_csv(folder / "held_out.csv", index=False)
    return folder


def make_run(folder, manifest, seed=0, model=MODEL, **arguments):
    """A run as training leaves it, whose weights are random."""
    from pathology.tasks.tile_classification import TileClassification

    torch.manual_seed(seed)
    arguments = {"model_args": {"img_size": 16, "depth": 1}} | arguments
    task = TileClassification(model, CLASSES, **arguments)
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(checkpoint, folder / "checkpoints" / "best.ckpt")
    data = {"manifest": str(manifest), "classes": CLASSES, "num_workers": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "vit", images / "tiles.csv")


def evaluate(pathology, run, *more):
    return pathology("evaluate", "--run", run, "--device", "cpu", "--repeats", "50", *more)


def test_an_evaluation_is_measures_predictions_and_a_page(pathology, run):
    code, out, _ = evaluate(pathology, run)
    assert code == 0
    record = json.loads((run / "evaluation" / "val.json").read_text())
    assert (record["tiles"], record["groups"], record["split"]) == (24, 4, "val")
    assert {"auroc", "ece", "sensitivity/grey"} <= set(record["metrics"])
    table = pd.read_parquet(run / "evaluation" / "val.parquet")
    assert table["name"].iloc[0] == "0.png"
    logits = table[[f"logit_{name}" for name in CLASSES]].to_numpy()
    probabilities = table[[f"probability_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-12)
    html = (run / "evaluation" / "val.html").read_text()
    for text in ("24 tiles of 4 patients", "data:image/svg+xml", "data:image/jpeg", "val_0"):
        assert text in html
    assert "http://" not in html
    assert "https://" not in html
    assert "balanced_accuracy" in out
    assert "Training chose its best checkpoint on this split" in out
    assert "Training chose" in html


def test_held_out_images_need_file_and_label_only(pathology, refused, run, images, tmp_path):
    held_out = ["--manifest", images / "held_out.csv"]
    # Figures of the run's own manifest under another name are no hindrance, nor are its splits.
    code, out, _ = evaluate(pathology, run, *held_out, "--out", tmp_path)
    assert (code, "24 tiles of split all" in out) == (0, True)
    record = json.loads((tmp_path / "all.json").read_text())
    assert record["groups"] is None
    assert evaluate(pathology, run, "--split", "test")[0] == 0
    own = pd.read_parquet(run / "evaluation" / "test.parquet")
    other = pd.read_parquet(tmp_path / "all.parquet")
    columns = ["name", "label", "logit_dark", "logit_grey", "logit_bright"]
    pd.testing.assert_frame_equal(own[columns], other[columns])
    line = refused("evaluate", "--run", run, *held_out, "--features", "x", "--device", "cpu")
    assert "--features is not for a run of tiles" in line


def test_figures_of_another_run_are_not_replaced_and_its_own_are(
    pathology, refused, run, images, tmp_path
):
    out = ["--manifest", images / "held_out.csv", "--out", tmp_path / "figures"]
    assert [evaluate(pathology, run, *out)[0] for _ in range(2)] == [0, 0]
    other = make_run(tmp_path / "other", images / "tiles.csv", seed=1)
    line = refused("evaluate", "--run", other, *out, "--device", "cpu")
    assert f"holds figures of run {run}" in line


def test_a_class_that_held_out_images_lack_is_said(pathology, run, images, tmp_path):
    table = pd.read_csv(images / "held_out.csv")
    table[table["label"] != "grey"].to_csv(images / "less.csv", index=False)
    code, out, _ = evaluate(pathology, run, "--manifest", images / "less.csv", "--out", tmp_path)
    assert code == 0
    assert "No example of grey" in out
    assert "not defined: no example of grey" in out
    metrics = json.loads((tmp_path / "all.json").read_text())["metrics"]
    assert metrics["auroc"]["value"] is None
    assert 0 <= metrics["auroc/dark"]["value"] <= 1
    assert 0 <= metrics["auroc_of_present"]["value"] <= 1
    assert "No example of grey" in (tmp_path / "all.html").read_text()


def test_calibration_is_fitted_on_validation_and_is_the_models(pathology, run, images, tmp_path):
    code, out, _ = pathology("calibrate", "--run", run, "--device", "cpu")
    assert code == 0
    assert "fitted on 24 tiles of split val" in out
    trained = load_trained(run, "cpu")
    stored = Calibration.load(run / "calibration.json", trained.checkpoint, CLASSES)
    assert stored.after["nll"] <= stored.before["nll"]
    code, out, _ = evaluate(pathology, run, "--split", "test", "--calibrated")
    assert (code, "very split" in out) == (0, False)
    record = json.loads((run / "evaluation" / "test_calibrated.json").read_text())
    assert record["calibration"]["fitted_on"]["split"] == "val"
    assert set(record["calibration"]["before"]) == {"nll", "ece", "brier", "balanced_accuracy"}
    apply_calibration(trained.task, stored)
    from pathology.data.modules import TileDataModule

    data = TileDataModule(str(images / "tiles.csv"), CLASSES, num_workers=0)
    with torch.no_grad():
        logits = torch.cat([trained.task.predict_step(b) for b in data.loader("test")])
    table = pd.read_parquet(run / "evaluation" / "test_calibrated.parquet")
    # float32 in the model, float64 in the table.
    np.testing.assert_allclose(
        table[[f"logit_{name}" for name in CLASSES]], logits.numpy(), rtol=1e-4, atol=1e-4
    )
    code, out, _ = evaluate(pathology, run, "--calibrated", "--out", tmp_path)
    assert (code, "fitted on this very split" in out) == (0, True)
    assert "calibrated: ECE" not in out


def test_calibration_of_other_weights_is_refused(pathology, refused, run, images, tmp_path):
    other = make_run(tmp_path / "other", images / "tiles.csv", seed=1)
    line = refused("evaluate", "--run", other, "--calibrated", "--device", "cpu")
    assert "run `pathology calibrate` first" in line
    pathology("calibrate", "--run", run, "--device", "cpu")
    (other / "calibration.json").write_text((run / "calibration.json").read_text())
    line = refused("evaluate", "--run", other, "--calibrated", "--device", "cpu")
    assert "run `pathology calibrate` again" in line
    line = refused("calibrate", "--run", run, "--sensitivity", "2", "--device", "cpu")
    assert "sensitivity must be in (0, 1]" in line


def test_seeds_and_a_twin_are_summarised(pathology, refused, run, images, tmp_path):
    seeds = [make_run(tmp_path / f"s{i}", images / "tiles.csv", seed=i) for i in (1, 2)]
    twin = make_run(
        tmp_path / "twin", images / "tiles.csv", model="resnet10t.c3_in1k", model_args={}
    )
    line = refused("summarise", seeds[0])
    assert "run `pathology evaluate --run" in line
    for one in (*seeds, twin):
        assert evaluate(pathology, one)[0] == 0
    csv = tmp_path / "table.csv"
    code, out, _ = pathology(
        "summarise", *seeds, "--against", twin, "--repeats", "30", "--out", csv
    )
    assert code == 0
    assert "2 seeds" in out
    assert "minus 1 run" in out
    table = pd.read_csv(csv).set_index("measure")
    values = table.loc["auroc", [str(one) for one in seeds]]
    assert table.loc["auroc", "mean"] == pytest.approx(values.astype(float).mean())
    stored = json.loads((twin / "evaluation" / "val.json").read_text())["metrics"]["auroc"]["value"]
    difference = table.loc["auroc", "together"] - stored
    assert table.loc["auroc", "difference"] == pytest.approx(difference)
    assert "there twice" in refused("summarise", seeds[0], seeds[0])


def test_a_conventional_model_is_calibrated_by_one_temperature(pathology, images, tmp_path):
    twin = make_run(
        tmp_path / "twin", images / "tiles.csv", model="resnet10t.c3_in1k", model_args={}
    )
    assert pathology("calibrate", "--run", twin, "--device", "cpu")[0] == 0
    stored = json.loads((twin / "calibration.json").read_text())
    assert stored["link"] == "softmax"
    assert len(set(stored["temperatures"])) == 1


@pytest.fixture
def lesions(cohort, tmp_path):
    """The cohort's slides, whose regions are lesions, and a detection in the middle of each."""
    table = pd.read_csv(cohort)
    for column in ("path", "regions"):
        table[column] = [str(cohort.parent / name) if name else "" for name in table[column]]
    table.to_csv(tmp_path / "slides.csv", index=False)
    (tmp_path / "regions.json").write_text((cohort.parent / "regions.json").read_text())
    return tmp_path / "slides.csv"


def test_detections_are_scored(pathology, refused, lesions, tmp_path):
    from pathology.annotations import read_classes, read_regions
    from pathology.slides import open_slide

    rows = []
    classes = read_classes(tmp_path / "regions.json")
    for row in pd.read_csv(lesions, keep_default_na=False).to_dict("records"):
        with open_slide(row["path"]) as slide:
            regions = read_regions(row["regions"], slide, classes)
            x, y = regions.points("tumour", 200, np.random.default_rng(0)).T
            rows += [(row["slide_id"], *at, 0.9) for at in zip(x, y, strict=True)]
    found = pd.DataFrame(rows, columns=["slide_id", "x", "y", "score"])
    found.to_csv(tmp_path / "found.csv", index=False)
    arguments = ["froc", "--slides", lesions, "--detections", tmp_path / "found.csv"]
    arguments += ["--lesions", "[tumour]", "--repeats", "20"]
    code, out, err = pathology(*arguments, "--out", tmp_path / "froc.json")
    record = json.loads((tmp_path / "froc.json").read_text()) if code == 0 else None
    assert code == 0, err
    assert "CAMELYON16 score" in out
    assert all(row["false_positives"] == 0 for row in record["by_slide"])
    assert record["score"]["value"] == 1
    assert "no class is called 'fat'" in refused(*arguments[:5], "--lesions", "[fat]")
    assert "no slide of split 'x'" in refused(*arguments, "--split", "x")
    found.assign(slide_id="other").to_csv(tmp_path / "found.csv", index=False)
    assert "slide 'other' is not in" in refused(*arguments)
    found.assign(score=0.0).to_csv(tmp_path / "found.csv", index=False)
    assert "row 2 has no score that is a positive number" in refused(*arguments)
    found.assign(slide_id="").to_csv(tmp_path / "found.csv", index=False)
    assert "row 2 has no slide_id" in refused(*arguments)
    found.drop(columns="x").to_csv(tmp_path / "found.csv", index=False)
    assert "column 'x' is missing" in refused(*arguments)
    assert "cannot be read" in refused(*arguments[:3], "--detections", tmp_path / "no.csv")
