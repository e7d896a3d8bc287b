"""TileGrid: the tiles of one slide as columns, and as a table on disk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from pathology.errors import ManifestError, StampMismatchError
from pathology.geometry import Box, Mpp, Size, level0_length
from pathology.outputs import complete_file
from pathology.slides.slide import Slide
from pathology.tiling.columns import Columns, Text
from pathology.tiling.spec import TileSpec

FORMAT = 2
METADATA = b"pathology.tiles"
OWN_COLUMNS = ("x", "y", "tissue")


@dataclass(frozen=True, slots=True)
class GridSource:
    """The slide a grid belongs to.

    Args:
        slide_id: name of the slide.
        stamp: fingerprint of its content.
        size: its level-0 size in pixels.
        mpp: micrometres per level-0 pixel that the boxes were computed with.
        mpp_source: where that is from.
    """

    slide_id: str
    stamp: str
    size: Size
    mpp: Mpp
    mpp_source: str

    @classmethod
    def of(cls, slide: Slide) -> Self:
        """What ``slide`` says of itself."""
        return cls(slide.slide_id, slide.stamp(), slide.size, slide.mpp, slide.mpp_source)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile.

    Args:
        box: where it lies, in level-0 pixels.
        tissue: fraction of its area that is tissue.
        extra: the values of further columns, such as ``label``.
    """

    box: Box
    tissue: float
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TileGrid(Sequence[Tile]):
    """Tiles of one slide: 20 bytes a tile, and a byte for a label of up to 256 classes.

    Args:
        spec: what was asked for.
        source: the slide.
        x: left edges in level-0 pixels, float64.
        y: top edges in level-0 pixels, float64.
        tissue: fraction of tissue, float32.
        columns: further columns by name, one value per tile: numbers or text.
        made: what else decided places and columns, by name, as JSON has it: ``label``, how
            :func:`~pathology.tiling.label.label_tiles` chose; ``regions``, a digest of what places
            were drawn in.

    Raises:
        ValueError: columns of different lengths, one named as a column of the grid itself, or of
            something other than numbers and text.
    """

    spec: TileSpec
    source: GridSource
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    tissue: NDArray[np.float32]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", np.asarray(self.x, np.float64))
        object.__setattr__(self, "y", np.asarray(self.y, np.float64))
        object.__setattr__(self, "tissue", np.asarray(self.tissue, np.float32))
        own = Columns({"x": self.x, "y": self.y, "tissue": self.tissue})
        columns = Columns(self.columns)
        object.__setattr__(self, "columns", columns)
        if taken := set(OWN_COLUMNS) & set(columns):
            raise ValueError(f"columns may not be named {sorted(taken)}")
        for name, length in (own.lengths() | columns.lengths()).items():
            if length != len(self.x):
                raise ValueError(f"column {name} must have {len(self.x)} values, got {length}")

    @property
    def nbytes(self) -> int:
        """Memory of all columns, in bytes."""
        return self.x.nbytes + self.y.nbytes + self.tissue.nbytes + self._columns.nbytes

    @property
    def _columns(self) -> Columns:
        return cast(Columns, self.columns)  # whatever mapping it was made of

    @property
    def tile_size(self) -> Size:
        """Sides of every tile in level-0 pixels, real numbers."""
        size, mpp = self.spec.size_px, self.spec.mpp
        slide = self.source.mpp
        return Size(level0_length(size, mpp, slide.x), level0_length(size, mpp, slide.y))

    def boxes(self) -> NDArray[np.float64]:
        """``(n, 4)`` rows ``x, y, width, height`` in level-0 pixels."""
        width, height = self.tile_size
        sides = np.full_like(self.x, width), np.full_like(self.y, height)
        return np.stack([self.x, self.y, *sides], axis=1)

    def select(self, which: NDArray[Any]) -> Self:
        """The tiles at these indices, or where a mask is true."""
        return type(self)(
            self.spec,
            self.source,
            self.x[which],
            self.y[which],
            self.tissue[which],
            self._columns.select(which),
            self.made,
        )

    def with_columns(self, **columns: NDArray[Any]) -> Self:
        """The same tiles with further columns; one of the same name is replaced."""
        # How a column was made is not how its successor was.
        made = {name: how for name, how in self.made.items() if name not in columns}
        return replace(self, columns=self._columns.merged(columns), made=made)

    def with_made(self, **made: Any) -> Self:
        """The same tiles with more said of how they were made."""
        return replace(self, made={**self.made, **made})

    def __len__(self) -> int:
        return len(self.x)

    @overload
    def __getitem__(self, index: int) -> Tile: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Tile | Self:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return Tile(
            Box(float(self.x[index]), float(self.y[index]), *self.tile_size),
            float(self.tissue[index]),
            self._columns.row(index),
        )

    def __iter__(self) -> Iterator[Tile]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"TileGrid({self.source.slide_id!r}, {len(self)} tiles, {self.spec})"

    def check_slide(self, slide: Slide) -> None:
        """Refuse another slide than the tiles are of, or this one with another mpp.

        Raises:
            StampMismatchError: naming both.
        """
        _check_source("the grid", self.source, GridSource.of(slide))

    def save(self, path: str | Path) -> None:
        """Write the grid as a Parquet table; a file of that name is replaced in one step.

        Spec, slide and format version go into the file's metadata.

        Raises:
            OutputError: the folder or file cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        columns: dict[str, Any] = {"x": self.x, "y": self.y, "tissue": self.tissue}
        for name in self._columns:
            column = self._columns.stored(name)
            if isinstance(column, Text):
                # Plain strings in the file, which every reader understands; Parquet codes them.
                words = pa.array(column.words.tolist(), pa.string())
                column = pa.DictionaryArray.from_arrays(column.codes, words).cast(pa.string())
            columns[name] = column
        metadata = {METADATA: json.dumps(self._header(), sort_keys=True).encode()}
        table = pa.table(columns).replace_schema_metadata(metadata)
        with complete_file(path) as draft:
            pq.write_table(table, draft)

    @classmethod
    def load(
        cls, path: str | Path, spec: TileSpec | None = None, slide: Slide | None = None
    ) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            path: the Parquet file.
            spec: refuse tiles that were cut to another one.
            slide: refuse tiles of another slide, or of this one with another mpp.

        Raises:
            ManifestError: missing, damaged, or no table of tiles.
            StampMismatchError: made by another spec, or from another slide.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        try:
            # One file, not a data set: a folder of this name is a mistake, not a partition.
            schema = pq.read_schema(path)
            text = [field.name for field in schema if pa.types.is_string(field.type)]
            table = pq.ParquetFile(path, read_dictionary=text).read()
        except (OSError, pa.ArrowException) as error:
            raise ManifestError(f"{path}: tiles cannot be read: {_first_line(error)}") from error
        found_spec, source, made = _parse_header(path, table.schema.metadata or {})
        for name in (*OWN_COLUMNS, *text):
            if name in table.column_names and table.column(name).null_count:
                raise ManifestError(f"{path}: column {name} has no value for some tiles; fill them")
        columns: dict[str, Any] = {n: _values(table.column(n)) for n in table.column_names}
        if missing := [name for name in OWN_COLUMNS if name not in columns]:
            raise ManifestError(f"{path}: not a table of tiles, columns {missing} are missing")
        if spec is not None and spec != found_spec:
            raise StampMismatchError(_spec_mismatch(path, found_spec, spec))
        if slide is not None:
            _check_source(str(path), source, GridSource.of(slide))
        x, y, tissue = (columns.pop(name) for name in OWN_COLUMNS)
        return cls(found_spec, source, x, y, tissue, columns, made)

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "spec": self.spec.to_dict(),
            "spec_digest": self.spec.digest(),
            "slide_id": self.source.slide_id,
            "slide_stamp": self.source.stamp,
            "slide_size": list(self.source.size),
            "slide_mpp": list(self.source.mpp),
            "mpp_source": self.source.mpp_source,
            "made": dict(self.made),
        }


def _values(column: Any) -> NDArray[Any] | Text:
    """A column of an Arrow table; without a copy where it lies in one piece."""
    import pyarrow as pa

    whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if pa.types.is_dictionary(column.type):
        words = np.array(whole.dictionary.to_pylist(), np.str_)
        return Text.of(whole.indices.to_numpy(zero_copy_only=False), words)
    return whole.to_numpy(zero_copy_only=False)


def _parse_header(
    path: Path, metadata: Mapping[bytes, bytes]
) -> tuple[TileSpec, GridSource, dict[str, Any]]:
    if METADATA not in metadata:
        raise ManifestError(f"{path}: not a table of tiles, it does not name spec and slide")
    try:
        header = json.loads(metadata[METADATA])
        if header["format"] != FORMAT:
            raise ManifestError(
                f"{path}: tiles of format {header['format']}, wanted {FORMAT}; tile the slide"
                " anew (pathology tile --overwrite)"
            )
        source = GridSource(
            header["slide_id"],
            header["slide_stamp"],
            Size(*header["slide_size"]),
            Mpp(*header["slide_mpp"]),
            header["mpp_source"],
        )
        return TileSpec.from_dict(header["spec"]), source, dict(header.get("made", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{path}: damaged metadata of tiles: {error!r}") from error


def _spec_mismatch(path: Path, got: TileSpec, wanted: TileSpec) -> str:
    theirs, ours = got.to_dict(), wanted.to_dict()
    names = [name for name in ours if ours[name] != theirs[name]]
    differences = "; ".join(
        f"{name} {_words(theirs[name])}, wanted {_words(ours[name])}" for name in names
    )
    return (
        f"{path}: tiles were cut with {differences}; ask for that spec, or tile the slide anew"
        " (pathology tile --overwrite)"
    )


def _words(value: Any) -> str:
    return " ".join(value) or "nothing" if isinstance(value, list) else str(value)


def _check_source(where: str, got: GridSource, wanted: GridSource) -> None:
    for what, theirs, ours in (
        ("stamp", got.stamp, wanted.stamp),
        ("size", tuple(got.size), tuple(wanted.size)),
        ("mpp", tuple(got.mpp), tuple(wanted.mpp)),
    ):
        if theirs != ours:
            raise StampMismatchError(
                f"{where}: tiles are of slide {got.slide_id} with {what} {theirs}, "
                f"wanted {wanted.slide_id} with {ours}; tile the slide anew"
            )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
