"""The loader of training: epochs in the order that their number says, also when resumed."""

from collections.abc import Iterator
from typing import Any

from monai.data import DataLoader

from pathology.data.samplers import TileSampler


class TileLoader(DataLoader):
    """MONAI's loader over a :class:`TileSampler`, which goes on within an epoch.

    Reading starts with the first batch asked for. Lightning asks for an iterator before it tells
    the sampler the epoch: one that reads ahead at once shows a resumed run the first epoch again.
    Lightning keeps the loader's state in its checkpoints.
    """

    _resumed: tuple[int, int] = (-1, 0)
    _reached: tuple[int, int] = (-1, 0)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        if not isinstance(sampler, TileSampler) or self.batch_size is None:
            yield from super().__iter__()
            return
        epoch, done = sampler.epoch, 0
        if self._resumed[0] == epoch:
            done = self._resumed[1]
        self._resumed = (-1, 0)
        sampler.skipped = done * self.batch_size
        self._reached = (epoch, done)
        for batch in super().__iter__():
            done += 1
            self._reached = (epoch, done)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were given out."""
        epoch, batches = self._reached
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin behind the batches given out, should that epoch come."""
        self._resumed = (state["epoch"], state["batches"])
