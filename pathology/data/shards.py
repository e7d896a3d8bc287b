"""Tiles packed into WebDataset shards: plain tar files that streaming readers and ours understand.

::

    shards/case_001-00000.tar
        __shard__/stamp.json         what the shard was made of; WebDataset passes over it
        case_001/00000000.jpg        a tile: stored JPEG passed through, or .png, or .jpg anew
        case_001/00000000.json       its slide, place (level-0 pixels), mpp and label
        ...
        __shard__/summary.json       how many were passed through
    shards/case_001.parquet          where each tile's bytes are, to read them in any order

A shard holds tiles of one slide, and its bytes depend on the slide, the tile table and the settings
alone: not on who writes it, or when. It appears under its name when complete, and the table of a
slide when all of its shards have; what is there with another stamp is refused.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pathology.errors import ManifestError, StampMismatchError
from pathology.geometry import Box, Mpp, Size
from pathology.outputs import complete_file
from pathology.slides import Slide
from pathology.tiling import GridSource, TileGrid, TileSpec

FORMAT = 1
METADATA = b"pathology.shards"
STAMP, SUMMARY = "__shard__/stamp.json", "__shard__/summary.json"
PNG_LEVEL = 3  # half the time of level 6, and 3 % more bytes
NAME_LENGTH = 60  # a member's name must fit into a tar header of one block


@dataclass(frozen=True, slots=True)
class Shards:
    """The packed tiles of one slide.

    Args:
        stamp: what they were made of, see :func:`slide_stamp`.
        sizes: bytes of each shard by name.
        shard: which of these each tile is in.
        offset: where its bytes begin in the shard, int64.
        length: how many there are.
        columns: ``x``, ``y`` in level-0 pixels, and ``label``, empty where there is none.
        passed_through: tiles whose bytes are the slide's own JPEG.
    """

    stamp: dict[str, Any]
    sizes: dict[str, int]
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    columns: dict[str, NDArray[Any]]
    passed_through: int

    @property
    def spec(self) -> TileSpec:
        """What the tiles were cut by."""
        return TileSpec.from_dict(self.stamp["spec"])

    @property
    def source(self) -> GridSource:
        """The slide."""
        stamp = self.stamp
        return GridSource(
            stamp["slide_id"],
            stamp["slide_stamp"],
            Size(*stamp["slide_size"]),
            Mpp(*stamp["slide_mpp"]),
            stamp["mpp_source"],
        )

    def save(self, path: Path) -> None:
        """Write where the tiles are, once all shards are there.

        Raises:
            OutputError: it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = pa.array(list(self.sizes), pa.string())
        table = pa.table(
            {
                "shard": pa.DictionaryArray.from_arrays(self.shard, names).cast(pa.string()),
                "offset": self.offset,
                "length": self.length,
                "x": self.columns["x"],
                "y": self.columns["y"],
                "label": pa.array(self.columns["label"].tolist(), pa.string()),
            }
        )
        header = {"stamp": self.stamp, "sizes": self.sizes, "passed_through": self.passed_through}
        with complete_file(path) as draft:
            pq.write_table(table.replace_schema_metadata({METADATA: _json(header)}), draft)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ManifestError: no such table, a damaged one, or a shard that is missing or cut short.
        """
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if not path.is_file():
            raise ManifestError(
                f"{path}: no packed tiles of this slide; run `pathology pack` on this manifest"
            )
        try:
            table = pq.ParquetFile(path).read()
            header = json.loads((table.schema.metadata or {})[METADATA])
            stamp, sizes = header["stamp"], header["sizes"]
            if stamp["format"] != FORMAT:
                raise ValueError(f"format {stamp['format']}, wanted {FORMAT}")
            names = pa.array(list(sizes), pa.string())
            column = {name: table.column(name) for name in table.column_names}
            shard = pc.index_in(column["shard"], value_set=names).to_numpy()
            return cls(
                stamp,
                sizes,
                shard,
                column["offset"].to_numpy(),
                column["length"].to_numpy(),
                {name: column[name].to_numpy() for name in ("x", "y", "label")},
                header["passed_through"],
            )
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise ManifestError(
                f"{path}: not a table of packed tiles ({error!r}); choose another folder, or pack"
                " again"
            ) from error

    def check_files(self, folder: Path) -> None:
        """Refuse shards that are missing or cut short.

        Raises:
            ManifestError: naming the first.
        """
        for name, size in self.sizes.items():
            path = folder / name
            got = path.stat().st_size if path.is_file() else None
            if got != size:
                found = "is missing" if got is None else f"has {got} bytes, wanted {size}"
                raise ManifestError(
                    f"{path}: {found}; restore it, or remove it and this slide's .parquet and run"
                    " `pathology pack` again"
                )


def pack_slide(
    slide: Slide, grid: TileGrid, path: Path, tiles_per_shard: int, quality: int | None
) -> Shards:
    """Write the shards of a slide; those that are there with the same stamp stay as they are.

    Args:
        slide: the slide, in the colour that ``grid.spec`` asks for.
        grid: its tiles.
        path: table that says where the tiles are, written last; the shards lie beside it.
        tiles_per_shard: at most so many tiles in one file.
        quality: of the JPEG that tiles are compressed to which cannot be passed through; ``None``
            keeps every pixel as it is, in PNG.

    Raises:
        StampMismatchError: a shard of that name was made otherwise.
        SlideOpenError: the slide is damaged under a tile.
        OutputError: the folder cannot be written.
    """
    name = shard_name(path.stem)
    stamp = slide_stamp(path.stem, grid, tiles_per_shard, quality)
    places, sizes = [np.empty((0, 2), np.int64)], {}
    passed_through = 0
    for number, first in enumerate(range(0, len(grid), tiles_per_shard)):
        rows = range(first, min(first + tiles_per_shard, len(grid)))
        shard = path.with_name(f"{name}-{number:05d}.tar")
        if shard.exists():
            check_stamp(shard, read_stamp(shard), stamp)
        else:
            write_shard(shard, slide, grid, rows, stamp, quality)
        found, passed = _contents(shard, len(rows))
        places.append(found)
        sizes[shard.name] = shard.stat().st_size
        passed_through += passed
    offset, length = np.concatenate(places).T
    shards = Shards(
        stamp,
        sizes,
        (np.arange(len(grid)) // tiles_per_shard).astype(np.int32),
        offset,
        length.astype(np.int32),
        {"x": grid.x, "y": grid.y, "label": _labels(grid)},
        passed_through,
    )
    shards.save(path)
    return shards


def shard_name(slide_id: str) -> str:
    """A slide's name as a file name and key: WebDataset cuts keys at dots and expands braces."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", slide_id)[:NAME_LENGTH]
    if name == slide_id:
        return name
    return f"{name}_{hashlib.sha256(slide_id.encode()).hexdigest()[:8]}"


def slide_stamp(
    slide_id: str, grid: TileGrid, tiles_per_shard: int, quality: int | None
) -> dict[str, Any]:
    """Everything that the shards of a slide depend on.

    It goes by the manifest's name there: a file's own name need not be the only one of its kind.
    """
    tiles = hashlib.sha256(grid.x.tobytes() + grid.y.tobytes())
    tiles.update(json.dumps(_labels(grid).tolist()).encode())
    return {
        "format": FORMAT,
        "slide_id": slide_id,
        "slide_stamp": grid.source.stamp,
        "slide_size": list(grid.source.size),
        "slide_mpp": list(grid.source.mpp),
        "mpp_source": grid.source.mpp_source,
        "spec": grid.spec.to_dict(),
        "tiles": len(grid),
        "places_and_labels": tiles.hexdigest(),
        "rule": grid.made.get("label"),  # how labels were chosen
        "quality": quality,
        "tiles_per_shard": tiles_per_shard,
    }


def write_shard(
    path: Path,
    slide: Slide,
    grid: TileGrid,
    rows: range,
    stamp: Mapping[str, Any],
    quality: int | None,
) -> None:
    """Write some tiles of a slide as one tar file, complete or not at all."""
    key = path.stem.rpartition("-")[0]
    labels = _labels(grid)
    passed = 0
    # ustar headers with no owner and no time: the same tiles are the same bytes.
    with (
        complete_file(path) as draft,
        tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        _add(tar, STAMP, _json(stamp))
        for row in rows:
            box = grid[row].box
            image, suffix, taken = encode_tile(slide, box, grid.spec.mpp, quality)
            passed += taken
            place = {
                "slide_id": stamp["slide_id"],
                "x": box.x,
                "y": box.y,
                "mpp": grid.spec.mpp,
                "label": str(labels[row]),
            }
            _add(tar, f"{key}/{row:08d}.{suffix}", image)
            _add(tar, f"{key}/{row:08d}.json", _json(place))
        _add(tar, SUMMARY, _json({"passed_through": passed}))


def encode_tile(slide: Slide, box: Box, mpp: float, quality: int | None) -> tuple[bytes, str, bool]:
    """A tile's bytes, their kind, and whether the slide's own JPEG was taken over.

    That is done only where it decodes to the very pixels that reading the slide gives.
    """
    import imagecodecs

    pixels = slide.read(box, mpp)
    stored = slide.encoded(box, mpp)
    if stored is not None and np.array_equal(decode_tile(stored), pixels):
        return stored, "jpg", True
    pixels = np.ascontiguousarray(pixels)
    if quality is None:
        return bytes(imagecodecs.png_encode(pixels, level=PNG_LEVEL)), "png", False
    return bytes(imagecodecs.jpeg8_encode(pixels, level=quality)), "jpg", False


def decode_tile(data: bytes) -> NDArray[np.uint8]:
    """``(height, width, 3)`` pixels of a tile.

    Raises:
        ValueError: neither JPEG nor PNG, or damaged.
    """
    import imagecodecs
    import simplejpeg

    pixels: NDArray[np.uint8]
    try:
        if data[:4] == b"\x89PNG":
            pixels = imagecodecs.png_decode(data)
        else:  # not by imagecodecs, which fills up damaged tiles with grey
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except Exception as error:  # each codec brings an exception of its own
        raise ValueError(str(error)) from error
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def check_stamp(path: Path, got: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse what was packed of something else.

    Raises:
        StampMismatchError: naming the first thing that differs.
    """
    for name in sorted(wanted.keys() | got.keys()):
        if got.get(name) != wanted.get(name):
            theirs, ours = _differing(got.get(name), wanted.get(name))
            raise StampMismatchError(
                f"{path}: packed with {name} {theirs}, wanted {ours};"
                " choose another --out, or remove this slide's files there"
            )


def read_stamp(path: Path) -> dict[str, Any]:
    """What a shard was made of.

    Raises:
        ManifestError: it is no shard of ours.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            member = tar.next()
            file = tar.extractfile(member) if member and member.name == STAMP else None
            if file is not None:
                found: dict[str, Any] = json.loads(file.read())
                return found
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ManifestError(f"{path}: not a shard that can be read: {error}") from error
    raise ManifestError(f"{path}: not a shard made by `pathology pack`; choose another --out")


def _contents(path: Path, count: int) -> tuple[NDArray[np.int64], int]:
    """``(count, 2)`` offset and length of a shard's tiles, and how many were passed through."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = list(tar)
            images = [m for m in members if m.name.endswith((".jpg", ".png"))]
            summary = tar.extractfile(SUMMARY)
            assert summary is not None
            passed = int(json.loads(summary.read())["passed_through"])
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise ManifestError(f"{path}: damaged ({error}); remove it and pack again") from error
    if len(images) != count:
        raise ManifestError(
            f"{path}: holds {len(images)} tiles, wanted {count}; remove it and pack again"
        )
    return np.array([(m.offset_data, m.size) for m in images], np.int64).reshape(-1, 2), passed


def _labels(grid: TileGrid) -> NDArray[Any]:
    """Labels as text, empty where a grid has none."""
    if "label" in grid.columns:
        return np.asarray(grid.columns["label"])
    return np.full(len(grid), "", dtype=np.str_)


def _differing(got: Any, wanted: Any) -> tuple[Any, Any]:
    """Of two nested settings the parts that differ."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        names = [n for n in {**got, **wanted} if got.get(n) != wanted.get(n)]
        return {n: got.get(n) for n in names}, {n: wanted.get(n) for n in names}
    return got, wanted


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
