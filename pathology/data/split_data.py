"""What data modules of tiles and of bags share: reading processes, seeds, and going on midway."""

import os
from typing import Any

import lightning
import numpy as np
import torch
from monai.data import DataLoader

from pathology.data.loader import TileLoader

MOST_WORKERS = 8  # by default; more seldom help one device, and each holds slides and batches


class SplitData(lightning.LightningDataModule):
    """Data by split whose training, once resumed, sees what an uninterrupted one would have seen.

    A sub-class gives :meth:`loader`.

    Args:
        num_workers: reading processes; one per core of each device's share, up to 8, when None.
        multiprocessing_context: how they are started; the system's way when None.
    """

    def __init__(
        self, num_workers: int | None = None, multiprocessing_context: str | None = None
    ) -> None:
        super().__init__()
        self.num_workers, self.multiprocessing_context = num_workers, multiprocessing_context
        self._training: TileLoader | None = None
        self._reached: dict[str, int] | None = None

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """Batches of a split, in its order unless for training."""
        raise NotImplementedError

    def reading(self) -> dict[str, Any]:
        """How a loader reads: its processes, and memory that a GPU copies from."""
        workers = self._workers()
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "multiprocessing_context": self.multiprocessing_context if workers else None,
            "pin_memory": torch.cuda.is_available(),
        }

    def shares(self) -> dict[str, Any]:
        """A sampler's seed, and which share of its order is this process's."""
        trainer = self.trainer
        return {
            "seed": seed(),
            "rank": trainer.global_rank if trainer else 0,
            "world_size": trainer.world_size if trainer else 1,
        }

    def generator(self) -> torch.Generator:
        """For what is drawn for the batch at hand, by seed, device and batch alone."""
        assert self.trainer is not None
        number = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        place = [seed(), self.trainer.global_rank, number]
        draw = np.random.SeedSequence(place).generate_state(2)
        return torch.Generator().manual_seed(int(draw[0]) << 32 | int(draw[1]))

    def _workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        devices = self.trainer.num_devices if self.trainer else 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return min(MOST_WORKERS, (cores or 1) // devices)

    def train_dataloader(self) -> DataLoader:
        loader = self.loader("train", training=True)
        assert isinstance(loader, TileLoader)
        if self._reached is not None:
            loader.load_state_dict(self._reached)
            self._reached = None  # not for a training after this one
        self._training = loader
        return loader

    # Lightning keeps a loader's state, too, but gives it back only to one that is made after the
    # checkpoint was read; asking for the number of steps, as schedules of learning rates do, makes
    # it before.

    def state_dict(self) -> dict[str, int]:
        """How far training is, for Lightning's checkpoints."""
        return {} if self._training is None else self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Have the next loader of training go on there."""
        self._reached = state_dict or None

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")


def seed() -> int:
    """What ``seed_everything`` said, in the place where Lightning keeps it."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))
