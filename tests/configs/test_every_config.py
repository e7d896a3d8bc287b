"""Every shipped config parses; smoke configs run through the real entry point."""

from pathlib import Path

import pytest
import torch
import yaml

from bcos_vit.models import create_model
from pathology.benchmark.study.config import load_study
from pathology.cli import main
from pathology.cli.lightning_train import TrainCLI, make_parser_arguments

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("train/*.yaml")), ids=lambda p: p.stem)
def test_it_parses_and_its_classes_can_be_made(path, tmp_path):
    with torch.device("meta"):  # a network without numbers, made at once
        cli = TrainCLI(**make_parser_arguments(["--config", str(path), "--out", str(tmp_path)]))
    assert cli.task == yaml.safe_load(path.read_text()).get("task", "tiles")
    assert cli.model.classes == cli.datamodule.classes
    assert cli.model.outcome == cli.datamodule.outcome


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("train/*.yaml")), ids=lambda p: p.stem)
def test_it_says_what_it_is(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert path.relative_to(CONFIGS).as_posix() in (CONFIGS / "README.md").read_text()


# Those of slides need features: tests/cli/test_slide_chain.py runs them.
TILES = [p for p in sorted(CONFIGS.glob("smoke/*.yaml")) if "task: slides" not in p.read_text()]


@pytest.mark.parametrize("path", TILES, ids=lambda p: p.stem)
def test_smoke_configs_run(path, cohort, cohort_tiles, tmp_path):
    arguments = ["train", "--config", str(path), "--out", str(tmp_path / "run")]
    arguments += ["--data.manifest", str(cohort), "--data.tiles", str(cohort_tiles)]
    assert main([*arguments, "--trainer.accelerator", "cpu"]) == 0
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


STUDIES = sorted(CONFIGS.glob("benchmark/*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_studies_are_whole_and_say_what_they_need(path):
    study = load_study(path)
    assert study.name == path.stem
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(head)
    for word in ("Data", "Hardware: ", "Expected: ", f"--config configs/benchmark/{path.name}"):
        assert word in text
    assert path.relative_to(CONFIGS).as_posix() in (CONFIGS / "README.md").read_text()
    # A network that cannot be made would only be met after hours.
    for each in study.backbones:
        with torch.device("meta"):
            create_model(each.model, num_classes=2, **each.model_args)
