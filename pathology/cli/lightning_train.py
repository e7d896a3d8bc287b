"""The LightningCLI behind ``pathology train``: a run folder that is complete and can be resumed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from pathology.cli.trained import OriginInCheckpoints, TileKind, write_origin
from pathology.data.modules import TileDataModule
from pathology.errors import StampMismatchError
from pathology.outputs import complete_file, writable_folder
from pathology.stain import StainFolder
from pathology.tasks.checkpoint import Run
from pathology.tasks.tile_classification import TileClassification

HOW_READ = ("num_workers", "multiprocessing_context")  # whatever they are, tiles are the same


class StopEarly(EarlyStopping):
    """Early stopping that starts counting once the model is what it is to become."""

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        task = trainer.lightning_module
        if not isinstance(task, TileClassification) or task.has_arrived:
            super()._run_early_stopping_check(trainer)


class TrainCLI(LightningCLI):
    """Training by config; ``--out`` says where the run goes."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, required=True, help="folder of the run")
        parser.add_argument(
            "--patience", type=int, default=0, help="epochs without gain before stopping; 0: never"
        )
        parser.link_arguments("data.classes", "model.classes")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        run = Run(Path(self.config["out"]))
        monitor = self.model.monitor
        callbacks: list[Any] = [
            ModelCheckpoint(run.checkpoints, "best", monitor=monitor, mode="max",
                            enable_version_counter=False),
            # By itself: the other one writes only when there is a new best.
            ModelCheckpoint(run.checkpoints, "last", enable_version_counter=False),
            LearningRateMonitor("step"),
            OriginInCheckpoints(run),
        ]  # fmt: skip
        if self.config["patience"]:
            callbacks.append(StopEarly(monitor, mode="max", patience=self.config["patience"]))
        loggers = [
            CSVLogger(run.folder, name="", version="logs"),
            TensorBoardLogger(run.folder, name="", version="logs"),
        ]
        return super().instantiate_trainer(
            logger=loggers,
            callbacks=[*(self.config_init["trainer"]["callbacks"] or []), *callbacks],
            default_root_dir=str(run.folder),
            **kwargs,
        )


def make_parser_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """What :class:`TrainCLI` is made with, for these words of a command line."""
    return {
        "model_class": TileClassification,
        "datamodule_class": TileDataModule,
        "args": list(arguments),
        "run": False,
        "save_config_callback": None,  # config.yaml is written by train(), also when resuming
        "seed_everything_default": 0,
        "trainer_defaults": {
            "max_epochs": 10,
            "log_every_n_steps": 10,
            "enable_model_summary": False,
        },
        "parser_kwargs": {
            "prog": "pathology train",
            "description": "Train a model on labelled tiles.",
        },
        "auto_configure_optimizers": False,
        "load_from_checkpoint_support": False,
    }


def train(arguments: Sequence[str]) -> int:
    """Train, or go on with, or recognise as finished, the run that ``--out`` names."""
    torch.set_float32_matmul_precision("high")
    try:
        cli = TrainCLI(**make_parser_arguments(arguments))
    except MisconfigurationException as error:
        raise ValueError(f"the trainer cannot be set up: {error}") from error
    if isinstance(cli.trainer.strategy.launcher, _MultiProcessingLauncher):
        # What training came to would stay in them: best score, epochs, steps.
        raise ValueError(
            "training in processes that this one forks or spawns is not supported; give"
            " --trainer.strategy ddp, which starts the command anew for each device"
        )
    cli.model.check_length(cli.trainer.max_epochs)
    run = Run(writable_folder(Path(cli.config["out"])))
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    for word in ("config", "out"):  # where it stands is not part of what it is
        config.pop(word, None)
    tiles, shown = (TileKind.of(cli.datamodule.dataset(split)) for split in ("train", "val"))
    if tiles != shown:
        raise StampMismatchError(
            f"{cli.datamodule.manifest}: training tiles of {tiles}, those of validation of {shown};"
            " cut both alike"
        )
    if run.config.is_file():
        _check_same(yaml.safe_load(run.config.read_text()), config, run)
    else:
        with complete_file(run.config) as draft:
            draft.write_text(yaml.safe_dump(config, sort_keys=False))
    digest = _digest(cli.datamodule, config["model"]["init_from"])
    stains = cli.datamodule.stains
    target = StainFolder(stains).target.digest() if stains else None
    write_origin(run, tiles, digest, target)
    if run.finished.exists():
        print(f"{run.folder}: already trained by this config; nothing to do")
        return 0
    resume = str(run.last) if run.last.is_file() else None
    if resume:
        print(f"{run.folder}: resuming from {run.last.name}")
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    if cli.trainer.interrupted:
        raise KeyboardInterrupt
    best = cli.trainer.checkpoint_callback
    assert isinstance(best, ModelCheckpoint)
    score = float("nan") if best.best_model_score is None else float(best.best_model_score)
    if not cli.model.has_arrived:
        raise ValueError(
            f"{run.folder}: training ended before the model was a B-cos model (bcosify_epochs"
            f" {cli.model.hparams['bcosify_epochs']:g}); choose another --out and give it more"
            " time or steps"
        )
    if not run.best.is_file():
        print(f"{run.folder}: no checkpoint was asked for, none was written")
        return 0
    with complete_file(run.finished) as draft:
        draft.write_text(
            yaml.safe_dump({cli.model.monitor: score, "epochs": cli.trainer.current_epoch})
        )
    print(f"{run.folder}: {cli.model.monitor} {score:.4f} (best epoch), weights in {run.best}")
    return 0


def _digest(data: TileDataModule, init_from: str | None) -> str:
    """Fingerprint of what a run is made from besides its settings: tables and first weights."""
    first = Path(init_from).read_bytes() if init_from else b""
    return hashlib.sha256(data.digest().encode() + first).hexdigest()[:16]


def _check_same(stored: dict[str, Any], wanted: dict[str, Any], run: Run) -> None:
    """Refuse to mix two configurations in one run folder.

    Raises:
        StampMismatchError: naming the first setting that differs.
    """
    stored, wanted = (
        config | {"data": {k: v for k, v in config.get("data", {}).items() if k not in HOW_READ}}
        for config in (stored, wanted)
    )
    difference = _first_difference(stored, wanted)
    if difference:
        name, got, want = difference
        raise StampMismatchError(
            f"{run.folder}: holds a run with {name}={got!r}, this one has {want!r};"
            " choose another --out, or remove the folder"
        )


def _first_difference(a: Any, b: Any, name: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys(), key=str):
            found = _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return None
    return None if a == b else (name, a, b)
