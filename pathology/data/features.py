"""Features of tiles on disk: one HDF5 file a slide, stamped with all that decided its numbers.

::

    features/features.yaml     what all slides of the folder share (FeatureKind)
    features/case_001.h5
        features  (n, dims)    float32 or float16, a tile a row, in the order of the tile table
        boxes     (n, 4)       float64: x, y, width, height in level-0 pixels
        coords    (n, 2)       int64: x, y rounded, under the name that other MIL code reads
        attributes             the stamp: encoder, weights, precision, tiles, stain, slide, ...

A file appears under its name complete or not at all. Nothing of HDF5 stays open between calls, so
that a folder may be used from forked and spawned processes alike.
"""

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from pathology.errors import ManifestError, OutputError, StampMismatchError
from pathology.geometry import Mpp
from pathology.outputs import complete_file
from pathology.stain.fit import tiles_digest
from pathology.tiling import TileGrid, TileSpec

FORMAT = 1
KIND_FILE = "features.yaml"
CHUNK_BYTES = 2**18  # read at once where single rows are asked for
BLOCKS = 8  # rows nearer than a chunk's so many-th are read in one piece

Stored = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True)
class FeatureKind:
    """What decides features, whatever the slide; the same for all that are used together.

    Args:
        encoder: its name.
        weights: hash of its weights.
        dims: numbers per tile.
        encoding: how pixels become its input, in words.
        precision: what it was computed in: fp32, fp16 or bf16.
        stored: how the numbers are kept: float32 or float16.
        tiles: how the tiles were cut.
        stain: fingerprint of the target that tiles were normalised to; ``None`` as they are.
    """

    encoder: str
    weights: str
    dims: int
    encoding: str
    precision: str
    stored: str
    tiles: TileSpec
    stain: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML and HDF5."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "tiles": self.tiles.to_dict()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a kind.
        """
        known = {f.name: values[f.name] for f in fields(cls)}
        return cls(**known | {"tiles": TileSpec.from_dict(known["tiles"])})

    def digest(self) -> str:
        """Fingerprint, 16 hex digits."""
        return _digest(self.to_dict() | {"tiles": self.tiles.digest()})

    def check(self, where: object, wanted: "FeatureKind", what: str = "wanted") -> None:
        """Refuse features of another kind.

        Raises:
            StampMismatchError: naming what differs.
        """
        if self != wanted:
            differences = _differences(self.to_dict(), wanted.to_dict(), what)
            raise StampMismatchError(
                f"{where}: features made with {differences}; use another folder, or make all"
                " features with one encoder and one kind of tiles"
            )


@dataclass(frozen=True, slots=True)
class FeatureStamp:
    """What made the features of one slide.

    Args:
        kind: what is the same for all slides.
        slide_id: name of the slide.
        slide: fingerprint of its file.
        mpp: micrometres per level-0 pixel.
        grid: fingerprint of its tiles' places.
        profile: fingerprint of its stain profile, where tiles were normalised.
    """

    kind: FeatureKind
    slide_id: str
    slide: str
    mpp: Mpp
    grid: str
    profile: str | None = None

    @classmethod
    def of(
        cls, kind: FeatureKind, slide_id: str, grid: TileGrid, profile: str | None = None
    ) -> Self:
        """The stamp of features of a grid's tiles, cut as it was."""
        kind = replace(kind, tiles=grid.spec)
        source = grid.source
        return cls(kind, slide_id, source.stamp, source.mpp, tiles_digest(grid), profile)

    def digest(self) -> str:
        """Fingerprint, 16 hex digits."""
        return _digest(self._slide() | {"kind": self.kind.digest()})

    def check(self, where: object, wanted: "FeatureStamp") -> None:
        """Refuse features of another kind, slide or tiles.

        Raises:
            StampMismatchError: naming what differs.
        """
        self.kind.check(where, wanted.kind)
        if self != wanted:
            raise StampMismatchError(
                f"{where}: features of {_differences(self._slide(), wanted._slide(), 'wanted')};"
                " remove the file and run `pathology features` again"
            )

    def _slide(self) -> dict[str, Any]:
        values = asdict(self) | {"mpp": list(self.mpp)}
        values.pop("kind")
        return values

    def to_attributes(self) -> dict[str, Any]:
        """As HDF5 keeps it: numbers and text, the tiles' specification in JSON."""
        values = self._slide() | self.kind.to_dict() | {"format": FORMAT}
        return values | {
            "tiles": json.dumps(values["tiles"], sort_keys=True),
            "stain": values["stain"] or "",
            "profile": values["profile"] or "",
        }

    @classmethod
    def from_attributes(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_attributes`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a stamp.
        """
        if int(values["format"]) != FORMAT:
            raise ValueError(f"format {values['format']}, wanted {FORMAT}")
        plain = {f.name: _plain(values[f.name]) for f in fields(FeatureKind)}
        kind = FeatureKind.from_dict(
            plain | {"tiles": json.loads(plain["tiles"]), "stain": plain["stain"] or None}
        )
        slide_id, slide, grid = (str(values[name]) for name in ("slide_id", "slide", "grid"))
        mpp = Mpp(*(float(side) for side in values["mpp"]))
        return cls(kind, slide_id, slide, mpp, grid, str(values["profile"]) or None)


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a slide's tiles, or of some of them.

    Args:
        features: ``(n, dims)`` float32, whatever they are stored in.
        boxes: ``(n, 4)`` float64 ``x, y, width, height`` in level-0 pixels.
        positions_um: ``(n, 2)`` float64, centres of the tiles in micrometres from the slide's
            upper left corner.
        stamp: what made them.
    """

    features: NDArray[np.float32]
    boxes: NDArray[np.float64]
    positions_um: NDArray[np.float64]
    stamp: FeatureStamp

    def __len__(self) -> int:
        return len(self.features)


def feature_path(folder: str | Path, slide_id: str) -> Path:
    """Where the features of a slide are."""
    return Path(folder) / f"{slide_id}.h5"


@contextmanager
def write_features(
    path: str | Path, stamp: FeatureStamp, boxes: NDArray[np.float64], made: str = ""
) -> Iterator["FeatureWriter"]:
    """A file of features that takes its name when all rows were written.

    Args:
        path: the file.
        stamp: what makes them.
        boxes: ``(n, 4)``, where the tiles lie.
        made: by which versions and device, for people; no part of the stamp.

    Raises:
        OutputError: it cannot be written.
        ValueError: fewer rows were written than there are boxes.
    """
    with complete_file(Path(path)) as draft, _Disk(draft, "w+") as disk:
        with h5py.File(disk, "w") as file:
            for name, value in stamp.to_attributes().items():
                file.attrs[name] = value
            file.attrs["made"] = made
            writer = FeatureWriter(file, disk, stamp, boxes)
            yield writer
        disk.check()
        if writer.rows != len(boxes):
            raise ValueError(f"{path}: {writer.rows} rows written, wanted {len(boxes)}")


class _Disk(io.FileIO):
    """A file under HDF5 that keeps to itself what cannot be written, until somebody asks.

    HDF5 cannot close a file when writing fails, and takes the process down at its end.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of it, or note why not."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left:  # a disk that is nearly full takes a part
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = self.failure or error
        return count

    def truncate(self, size: int | None = None) -> int:
        """Cut it or make it longer, or note why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def flush(self) -> None:
        """Nothing is held back; HDF5 wants to ask."""

    def check(self) -> None:
        """Tell of what failed.

        Raises:
            OSError: something was not written.
        """
        if self.failure is not None:
            raise self.failure


class FeatureWriter:
    """Takes features from the first tile to the last.

    Args:
        file: open for writing.
        disk: what is under it.
        stamp: what makes them.
        boxes: ``(n, 4)``.
    """

    def __init__(
        self, file: h5py.File, disk: _Disk, stamp: FeatureStamp, boxes: NDArray[np.float64]
    ) -> None:
        dtype = np.dtype(stamp.kind.stored)
        self._disk, self._stamp, self._boxes, self.rows = disk, stamp, boxes, 0
        shape = (len(boxes), stamp.kind.dims)
        chunk = max(1, min(len(boxes), CHUNK_BYTES // max(1, dtype.itemsize * shape[1])))
        self._rows = file.create_dataset("features", shape, dtype, chunks=(chunk, shape[1]))
        file.create_dataset("boxes", data=np.asarray(boxes, np.float64))
        file.create_dataset("coords", data=np.rint(boxes[:, :2]).astype(np.int64))

    def append(self, rows: NDArray[np.floating]) -> None:
        """Write the features ``(m, dims)`` of the next tiles.

        Raises:
            ValueError: a value is no finite number, or none of the type that is stored.
            OSError: it could not be written.
        """
        finite = np.isfinite(rows)
        with np.errstate(over="ignore"):
            kept = np.asarray(rows).astype(self._rows.dtype)
        fits = np.isfinite(kept)
        if not fits.all():
            row = int(np.flatnonzero(~fits.all(axis=1))[0])
            raise ValueError(self._no_number(row, rows[row], bool(finite[row].all())))
        self._rows[self.rows : self.rows + len(kept)] = kept
        self.rows += len(kept)
        self._disk.check()

    def _no_number(self, row: int, values: NDArray[np.floating], is_finite: bool) -> str:
        x, y = self._boxes[self.rows + row, :2]
        where = f"slide {self._stamp.slide_id!r}, tile {self.rows + row} at ({x:g}, {y:g})"
        if is_finite:
            return (
                f"{where}: a feature of {np.abs(values).max():g} is too large for"
                f" {self._stamp.kind.stored}; use --stored float32"
            )
        what = "NaN" if np.isnan(values).any() else "infinite"
        precision = self._stamp.kind.precision
        hint = "use --precision bf16 or fp32" if precision == "fp16" else "look at the encoder"
        return f"{where}: a feature is {what} in {precision}; {hint}"


def read_stamp(path: str | Path) -> tuple[FeatureStamp, int]:
    """Stamp of a file of features, and its number of tiles.

    Raises:
        ManifestError: it is missing, or no such file.
    """
    with _opened(Path(path)) as (file, stamp):
        return stamp, len(file["boxes"])


def read_features(
    path: str | Path,
    expect: FeatureStamp | FeatureKind | None = None,
    rows: NDArray[np.integer] | None = None,
) -> Features:
    """Read what ``pathology features`` wrote of one slide.

    Args:
        path: the file.
        expect: refuse features that were made otherwise.
        rows: which tiles, in any order; all when omitted. Others are not read.

    Raises:
        ManifestError: the file is missing or damaged.
        StampMismatchError: made by another encoder, or from other tiles, than expected.
        IndexError: a row that there is not.
        TypeError: rows that are no whole numbers, such as a mask.
    """
    path = Path(path)
    if rows is not None:
        rows = np.asarray(rows)
        if rows.size and rows.dtype.kind not in "iu":
            raise TypeError(f"rows must be whole numbers, got {rows.dtype}")
        rows = rows.astype(np.int64)
    with _opened(path) as (file, stamp):
        if isinstance(expect, FeatureKind):
            stamp.kind.check(path, expect)
        elif expect is not None:
            stamp.check(path, expect)
        boxes = file["boxes"][:]
        if rows is None:
            values = file["features"][:]
        else:
            if rows.size and not (rows.min() >= 0 and rows.max() < len(boxes)):
                raise IndexError(f"{path}: rows must be in [0, {len(boxes)}), got {rows}")
            boxes = boxes[rows]
            values = _read_rows(file["features"], rows)
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    return Features(values.astype(np.float32, copy=False), boxes, centres * stamp.mpp, stamp)


def _read_rows(dataset: h5py.Dataset, rows: NDArray[np.integer]) -> NDArray[np.floating]:
    """Some rows of a data set, in stretches: HDF5 is slow at picking them one by one."""
    wanted, places = np.unique(rows, return_inverse=True)
    values = np.empty((len(wanted), dataset.shape[1]), dataset.dtype)
    gap = max(1, dataset.chunks[0] // BLOCKS)
    ends = np.flatnonzero(np.diff(wanted) > gap) + 1
    for stretch in np.split(np.arange(len(wanted)), ends):
        if len(stretch):
            first, last = wanted[stretch[0]], wanted[stretch[-1]]
            values[stretch] = dataset[first : last + 1][wanted[stretch] - first]
    return values[places]


class FeatureFolder:
    """Features of many slides, all of one kind.

    Args:
        folder: what ``pathology features`` wrote.
        slide_ids: the slides to use; all that are there when omitted.
        kind: refuse features of another kind.

    Raises:
        ManifestError: a slide has none, or its file is damaged.
        StampMismatchError: slides whose features were made otherwise than the first's.
    """

    def __init__(
        self,
        folder: str | Path,
        slide_ids: Iterable[str] | None = None,
        kind: FeatureKind | None = None,
    ) -> None:
        self.folder = Path(folder)
        if slide_ids is None:
            slide_ids = [path.stem for path in _files(self.folder)]
        self.stamps: dict[str, FeatureStamp] = {}
        self.counts: dict[str, int] = {}
        first = ""
        for slide_id in dict.fromkeys(map(str, slide_ids)):
            path = feature_path(self.folder, slide_id)
            stamp, self.counts[slide_id] = read_stamp(path)
            if stamp.slide_id != slide_id:
                raise StampMismatchError(
                    f"{path}: holds features of slide {stamp.slide_id!r}; files of features are"
                    " named by their slide"
                )
            if kind is None:
                kind, first = stamp.kind, f"slide {slide_id!r} has"
            stamp.kind.check(path, kind, first or "wanted")
            self.stamps[slide_id] = stamp
        if kind is None:
            raise ManifestError(f"{folder}: no features (.h5) here; run `pathology features` first")
        self.kind = kind

    @property
    def dims(self) -> int:
        """Numbers per tile."""
        return self.kind.dims

    @property
    def slide_ids(self) -> list[str]:
        """The slides, in the order asked for."""
        return list(self.stamps)

    def read(self, slide_id: str, rows: NDArray[np.integer] | None = None) -> Features:
        """Features of a slide, or of some of its tiles; see :func:`read_features`.

        Raises:
            StampMismatchError: the file has changed since the folder was looked at.
        """
        path = feature_path(self.folder, slide_id)
        return read_features(path, self.stamps[slide_id], rows)

    def digest(self) -> str:
        """Fingerprint of the slides and all that made their features, 16 hex digits."""
        return _digest({name: stamp.digest() for name, stamp in self.stamps.items()})


def claim_folder(folder: Path, kind: FeatureKind) -> None:
    """Say in a folder of what kind its features are, or see that they are of this one.

    Of several processes that begin at the same moment one claims it, and the others look.

    Raises:
        StampMismatchError: it holds features of another kind.
        ManifestError: what it holds about its features cannot be read.
        OutputError: it cannot be written.
    """
    path = folder / KIND_FILE
    if not path.exists():
        for other in _files(folder):  # whoever removed the claim may have left them
            read_stamp(other)[0].kind.check(other, kind)
        text = yaml.safe_dump(kind.to_dict(), sort_keys=False, allow_unicode=True)
        try:
            _create(path, text)
        except FileExistsError:
            pass  # another process was quicker
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        read_kind(folder).check(path, kind)
    except StampMismatchError as error:
        if _files(folder):
            raise
        raise StampMismatchError(
            f"{error}. There are none in it yet: if no other job is at work there, remove {path}"
        ) from None


def read_kind(folder: str | Path) -> FeatureKind:
    """Of what kind the features of a folder are.

    Raises:
        ManifestError: it does not say.
    """
    path = Path(folder) / KIND_FILE
    try:
        return FeatureKind.from_dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"{path}: does not say what features there are ({error!r}); remove it and run"
            " `pathology features` again, which looks at each file, or choose another folder"
        ) from error


def _files(folder: Path) -> list[Path]:
    """The files of features in a folder, without drafts."""
    return sorted(folder.glob("[!.]*.h5"))


def _create(path: Path, text: str) -> None:
    """Make a file with all of its content at once, unless there is one.

    Raises:
        FileExistsError: there is.
    """
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        Path(draft.name).chmod(0o666 & ~_umask())
        try:
            os.link(draft.name, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: content follows the name at once
            with path.open("x", encoding="utf-8") as file:
                file.write(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _opened(path: Path) -> Iterator[tuple[h5py.File, FeatureStamp]]:
    if not path.is_file():
        raise ManifestError(
            f"{path}: no features of slide {path.stem!r}; run `pathology features` on it"
        )
    try:
        with h5py.File(path, "r", locking=False) as file:
            stamp = FeatureStamp.from_attributes(file.attrs)
            shape, boxes = file["features"].shape, file["boxes"].shape
            if shape != (boxes[0], stamp.kind.dims):
                raise ValueError(f"features of shape {shape}, wanted {(boxes[0], stamp.kind.dims)}")
            yield file, stamp
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(
            f"{path}: not a usable file of features ({' '.join(str(error).split())}); remove it and"
            " run `pathology features` again"
        ) from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _differences(got: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> str:
    """What differs, as words."""
    theirs, ours = ({**v, **v.get("tiles", {})} for v in (got, wanted))
    names = [name for name in ours if name != "tiles" and theirs.get(name) != ours[name]]
    return "; ".join(
        f"{_LABELS.get(name, name)} {_words(theirs.get(name))}, {what} {_words(ours[name])}"
        for name in names
    )


_LABELS = {
    "stored": "numbers stored as", "stain": "stain target", "slide": "slide stamp",
    "grid": "tile places", "profile": "stain profile", "weights": "weights' hash",
    "mpp": "mpp",
}  # fmt: skip


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "nothing"
    text = "none" if value is None else str(value)
    return f"{text[:16]}..." if re.fullmatch("[0-9a-f]{40,}", text) else text
