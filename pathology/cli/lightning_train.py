"""The LightningCLI behind ``pathology train``: a run folder that is complete and can be resumed."""

import hashlib
import importlib.util
import logging
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from pathology.cli.run_checkpoints import (
    BestEpoch,
    ResumePoints,
    Stopped,
    WholeFiles,
    point_to_resume,
)
from pathology.cli.run_logs import curve_loggers
from pathology.cli.run_record import note_session, write_metrics
from pathology.errors import OutputError, StampMismatchError
from pathology.outputs import alone_in, complete_file, writable_folder
from pathology.runs.trained import OriginInCheckpoints, TileKind, write_origin
from pathology.stain import StainFolder
from pathology.tasks.checkpoint import Run
from pathology.tasks.registry import DEFAULT_TASK, TASKS, task_classes

# What a model takes over from its data.
LINKS = {
    "tiles": ("classes", "outcome", "dense_halo_px"),
    "slides": ("classes", "outcome"),
}

# Packages that loggers need, which are not installed with us.
PACKAGES = {"MLFlowLogger": "mlflow", "WandbLogger": "wandb", "CometLogger": "comet_ml"}

# Tiles are encoded in float32: others would be a mixture of this and theirs.
PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")

# Whatever these are, a run comes to the same: how often it saves, how it reads, what it shows.
FREE = {
    "": ("checkpoint_minutes",),
    "data": ("num_workers", "multiprocessing_context", "pin_memory"),
    "trainer": ("enable_progress_bar", "enable_model_summary", "logger", "profiler"),
}


class StopEarly(EarlyStopping):
    """Early stopping that starts counting once the model is what it is to become."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """A run that was killed between its last epoch and its end is at its end."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def _run_early_stopping_check(self, trainer: Trainer) -> None:
        if getattr(trainer.lightning_module, "has_arrived", True):
            super()._run_early_stopping_check(trainer)


class TrainCLI(LightningCLI):
    """Training by config; ``--out`` says where the run goes.

    Args:
        task: what is trained; a key of ``TASKS``.
        **options: LightningCLI's.
    """

    def __init__(self, task: str, **options: Any) -> None:
        self.task = task
        super().__init__(**options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, required=True, help="folder of the run")
        parser.add_argument(
            "--patience", type=int, default=0, help="epochs without gain before stopping; 0: never"
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=float,
            default=15.0,
            help="minutes between saves within an epoch; 0: at its end only",
        )
        parser.add_argument(
            "--task", type=str, default=DEFAULT_TASK, help=f"what is trained: {', '.join(TASKS)}"
        )
        for name in LINKS[self.task]:
            parser.link_arguments(f"data.{name}", f"model.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        _check_installed(self.config["trainer"]["logger"])
        super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        run = Run(Path(self.config["out"]))
        self.resume, self.step = (None, 0) if run.finished.exists() else point_to_resume(run)
        given = self.config_init["trainer"]
        self.best = BestEpoch(run, self.model.monitor)
        # In this order: what is the best so far is part of what is resumed.
        callbacks: list[Any] = [self.best, ResumePoints(run, self.config["checkpoint_minutes"])]
        if self.config["patience"]:
            patience = self.config["patience"]
            callbacks.append(StopEarly(self.model.monitor, mode="max", patience=patience))
        return super().instantiate_trainer(
            logger=[*curve_loggers(run, self.step), *_loggers(given["logger"])],
            callbacks=[*(given["callbacks"] or []), *callbacks],
            plugins=[*_several(given["plugins"]), WholeFiles(run)],
            default_root_dir=str(run.folder),
            **kwargs,
        )


def _several(given: Any) -> list[Any]:
    return [] if given is None else list(given) if isinstance(given, (list, tuple)) else [given]


def _loggers(given: Any) -> list[Logger]:
    """Those that a config adds to what every run has."""
    return [logger for logger in _several(given) if isinstance(logger, Logger)]


def _check_installed(given: Any) -> None:
    """Refuse loggers whose packages are missing; jsonargparse would say so in a thousand words.

    Raises:
        ValueError: naming the first such package.
    """
    for logger in _several(given):
        name = str(getattr(logger, "class_path", "")).rpartition(".")[2]
        package = PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"trainer.logger: {name} needs a package that is missing; pip install {package}"
            )


def chosen_task(arguments: Sequence[str]) -> str:
    """The task that these words of a command line choose; as everywhere, the last one counts.

    It is read before all else, since the other settings are those of its classes.

    Raises:
        ValueError: it is none.
    """
    chosen: Any = DEFAULT_TASK
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("--task", "--config", "-c"):
            continue
        value = value if equals else next(words, "")
        chosen = value if name == "--task" else _task_in(Path(value)) or chosen
    task_classes(chosen)
    return str(chosen)


def _task_in(path: Path) -> Any:
    """The task that a config names, if any; what is wrong with the file is said when it is read."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return config.get("task") if isinstance(config, dict) else None


def make_parser_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """What :class:`TrainCLI` is made with, for these words of a command line."""
    task = chosen_task(arguments)
    classes = task_classes(task)
    return {
        "task": task,
        "model_class": classes.task,
        "datamodule_class": classes.data,
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
            "description": f"Train a model on labelled {task}.",
            "exit_on_error": False,  # it would print every setting there is
        },
        "auto_configure_optimizers": False,
        "load_from_checkpoint_support": False,
    }


def train(arguments: Sequence[str]) -> int:
    """Train, or go on with, or recognise as finished, the run that ``--out`` names.

    Raises:
        OutputError: the folder cannot be written, or another process trains in it.
        StampMismatchError: it holds another run.
        ValueError: a setting that is not to be had.
    """
    torch.set_float32_matmul_precision("high")
    with warnings.catch_warnings():
        _leave_out_what_helps_nobody()
        try:
            return _train([_underscored(word) for word in arguments])
        except ArgumentError as error:
            raise ValueError(f"{error} (pathology train --help tells the settings)") from error
        except MisconfigurationException as error:
            raise ValueError(f"the trainer cannot be set up: {error}") from error


def _train(arguments: list[str]) -> int:
    cli = TrainCLI(**make_parser_arguments(arguments))
    _check_trainer(cli.trainer, cli.config["checkpoint_minutes"])
    cli.model.check_length(cli.trainer.max_epochs)
    run = Run(writable_folder(Path(cli.config["out"])))
    is_first = cli.trainer.is_global_zero
    with alone_in(run.folder, "training in it") if is_first else nullcontext():
        return _train_in(run, cli, arguments)


def _check_trainer(trainer: Trainer, minutes: float) -> None:
    """Refuse what would train something else, or tell nothing back.

    Raises:
        ValueError: naming the setting.
    """
    if not minutes >= 0:
        raise ValueError(f"--checkpoint-minutes must be at least 0, got {minutes}")
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision must be one of {', '.join(PRECISIONS)}; got {trainer.precision}"
        )
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        # What training came to would stay in them: best score, epochs, steps.
        raise ValueError(
            "training in processes that this one forks or spawns is not supported; give"
            " --trainer.strategy ddp, which starts the command anew for each device"
        )


def _train_in(run: Run, cli: TrainCLI, arguments: list[str]) -> int:
    config = yaml.safe_load(cli.parser.dump(cli.config, skip_none=False))
    for word in ("config", "out"):  # where it stands is not part of what it is
        config.pop(word, None)
    cli.datamodule.setup("fit")  # what is wrong with the data is said before there is a run
    origin = _origin(cli.task, cli.datamodule, config["model"].get("init_from"))
    if (dense := getattr(cli.model, "dense", None)) is not None:
        dense.cells(origin["size_px"])  # refuses sides that are no whole strides
    # A folder in which nothing was trained yet holds at most settings that could not be.
    has_begun = cli.resume is not None or run.finished.exists() or run.best.is_file()
    if has_begun and run.config.is_file():
        _check_same(run.settings(), config, run)
    is_first = cli.trainer.is_global_zero
    if is_first:
        if not has_begun or not run.config.is_file():
            with complete_file(run.config) as draft:
                draft.write_text(yaml.safe_dump(config, sort_keys=False))
            run.origin.unlink(missing_ok=True)
        write_origin(run, origin)
    if run.finished.exists():
        if is_first:
            print(f"{run.folder}: already trained by this config; nothing to do")
        return 0
    if is_first:
        note_session(run, arguments, cli.trainer, cli.step)
        if cli.resume:
            print(f"{run.folder}: resuming from {cli.resume.name}, step {cli.step}", flush=True)
    cli.trainer.callbacks.insert(0, OriginInCheckpoints(cli.task, origin))  # type: ignore[attr-defined]
    code = _fit(cli, run)
    return _conclude(cli, run) if code is None and is_first else code or 0


def _leave_out_what_helps_nobody() -> None:
    """Lightning's advertisements and internals; its warnings of what is wrong stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        "Checkpoint directory .* exists and is not empty",
        "The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message)


def _fit(cli: TrainCLI, run: Run) -> int | None:
    """Train; the exit code if something stopped it."""
    resume = None if cli.resume is None else str(cli.resume)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    except Stopped as stopped:
        if not cli.trainer.is_global_zero:
            return 0  # else the first process would be told that this one failed
        print(f"{run.folder}: {stopped}, state saved; run it again to go on")
        return stopped.code
    except OSError as error:  # a disk that is full, a tile that is gone
        place = f" ({error.filename})" if error.filename else ""
        raise OutputError(
            f"{run.folder}: {error.strerror or error}{place}; mend it and run it again to go on"
        ) from error
    except SystemExit:  # which Lightning makes of Ctrl-C
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    return None


def _conclude(cli: TrainCLI, run: Run) -> int:
    """Write what training came to."""
    if not cli.model.has_arrived:
        raise ValueError(
            f"{run.folder}: training ended before the model was a B-cos model (bcosify_epochs"
            f" {cli.model.hparams['bcosify_epochs']:g}); choose another --out and give it more"
            " time or steps"
        )
    if not run.best.is_file():
        print(f"{run.folder}: no checkpoint was asked for, none was written")
        return 0
    found = cli.best.best_model_score
    score = float("nan") if found is None else float(found)
    write_metrics(run, cli.model.monitor, cli.trainer)
    with complete_file(run.finished) as draft:
        draft.write_text(
            yaml.safe_dump({cli.model.monitor: score, "epochs": cli.trainer.current_epoch})
        )
    print(f"{run.folder}: {cli.model.monitor} {score:.4f} (best epoch), weights in {run.best}")
    return 0


def _underscored(word: str) -> str:
    """``--checkpoint-minutes`` as people type it."""
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def _origin(task: str, data: Any, init_from: str | None) -> dict[str, Any]:
    """What a run is made from besides its settings: kind of input, tables, first weights."""
    first = Path(init_from).read_bytes() if init_from else b""
    tables = data.digest()
    known: dict[str, Any] = (
        _tile_origin(data) if task == "tiles" else dict(getattr(data, "origin", dict)())
    )
    return known | {
        "digest": hashlib.sha256(tables.encode() + first).hexdigest()[:16],
        "sha256": {
            "manifest": hashlib.sha256(Path(data.manifest).read_bytes()).hexdigest(),
            "manifest_and_tables": tables,
            "init_from": hashlib.sha256(first).hexdigest() if init_from else None,
        },
    }


def _tile_origin(data: Any) -> dict[str, Any]:
    """Kind of tiles, and the target that they are normalised to.

    Raises:
        StampMismatchError: those of validation are of another kind.
    """
    tiles, shown = (TileKind.of(data.dataset(split)) for split in ("train", "val"))
    if tiles != shown:
        raise StampMismatchError(
            f"{data.manifest}: training tiles of {tiles}, those of validation of {shown};"
            " cut both alike"
        )
    target = StainFolder(data.stains).target.digest() if data.stains else None
    return asdict(tiles) | {"stain": target}


def _check_same(stored: dict[str, Any], wanted: dict[str, Any], run: Run) -> None:
    """Refuse to mix two configurations in one run folder.

    Raises:
        StampMismatchError: naming the first setting that differs.
    """
    stored, wanted = _bound({"task": DEFAULT_TASK} | stored), _bound(wanted)
    difference = _first_difference(stored, wanted)
    if difference:
        name, got, want = difference
        raise StampMismatchError(
            f"{run.folder}: holds a run with {name}={got!r}, this one has {want!r};"
            " choose another --out, or remove the folder"
        )


def _bound(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that tell what a run comes to."""
    bound = {name: value for name, value in config.items() if name not in FREE[""]}
    for part in ("data", "trainer"):
        bound[part] = {k: v for k, v in config.get(part, {}).items() if k not in FREE[part]}
    return bound


def _first_difference(a: Any, b: Any, name: str = "") -> tuple[str, Any, Any] | None:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys(), key=str):
            found = _first_difference(a.get(key), b.get(key), f"{name}.{key}" if name else str(key))
            if found:
                return found
        return None
    return None if a == b else (name, a, b)
