"""Columns of a grid by name; text takes a byte or two per tile rather than four per letter."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Text:
    """A column of few different words: a code per tile, and the word of each code."""

    codes: NDArray[Any]
    words: NDArray[np.str_]

    @classmethod
    def of(cls, codes: NDArray[Any], words: NDArray[np.str_]) -> Self:
        """Codes in the smallest type that counts the words."""
        return cls(codes.astype(np.min_scalar_type(max(0, len(words) - 1)), copy=False), words)

    @property
    def nbytes(self) -> int:
        """Memory of codes and words."""
        return self.codes.nbytes + self.words.nbytes

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, which: Any) -> Any:
        return self.words[self.codes[which]]


class Columns(Mapping[str, NDArray[Any]]):
    """Arrays of one value per tile.

    Text (classes, folds) is kept as :class:`Text` and spelled out when it is looked up.

    Args:
        columns: arrays or sequences by name; text as strings of any kind, or :class:`Text`.

    Raises:
        ValueError: a column that is not one-dimensional, or text mixed with other objects.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        stored = columns._stored if isinstance(columns, Columns) else columns
        self._stored: dict[str, NDArray[Any] | Text] = {
            name: column if isinstance(column, Text) else _stored(name, np.asarray(column))
            for name, column in stored.items()
        }

    @property
    def nbytes(self) -> int:
        """Memory of all columns."""
        return sum(column.nbytes for column in self._stored.values())

    def stored(self, name: str) -> NDArray[Any] | Text:
        """A column as it is kept."""
        return self._stored[name]

    def lengths(self) -> dict[str, int]:
        """How many values each column has."""
        return {name: len(column) for name, column in self._stored.items()}

    def select(self, which: Any) -> Self:
        """The values at these indices, or where a mask is true."""
        return type(self)(
            {
                name: Text.of(column.codes[which], column.words)
                if isinstance(column, Text)
                else column[which]
                for name, column in self._stored.items()
            }
        )

    def merged(self, further: Mapping[str, Any]) -> Self:
        """These columns and others; of two with a name the further."""
        return type(self)({**self._stored, **Columns(further)._stored})

    def row(self, index: int) -> dict[str, Any]:
        """The values of one tile, as Python's own."""
        return {name: np.asarray(column[index]).item() for name, column in self._stored.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self._stored[name][:]
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _stored(name: str, values: NDArray[Any]) -> NDArray[Any] | Text:
    if values.ndim != 1:
        raise ValueError(f"column {name} must have one value per tile, got shape {values.shape}")
    if values.dtype.kind not in "UO":
        return values
    strange = [value for value in values if not isinstance(value, str)]
    if strange:
        raise ValueError(f"column {name} must be numbers or text, got {strange[0]!r} among it")
    import pandas as pd

    # Several times as quick as sorting strings.
    codes, words = pd.factorize(values.astype(object))
    return Text.of(codes, np.array(list(words), np.str_))
