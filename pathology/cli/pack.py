"""``pathology pack``: from tables of tiles to shards for training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathology.cli.run_function import run_function


def pack(
    slides: Path,
    tiles: Path,
    out: Path,
    quality: int | None = None,
    tiles_per_shard: int = 2048,
    workers: int = 0,
    keep_going: bool = False,
) -> int:
    """Write the tiles of slides as WebDataset shards (tar files), to train without the slides.

    A tile that is one whole JPEG of the slide's file is taken over byte by byte; others are
    compressed anew. Run again, it goes on where it was stopped.

    Args:
        slides: manifest (slides.csv), folder that holds nothing but slides, or one slide.
        tiles: folder of the slides' tile tables.
        out: folder for the shards, and a table per slide that says where its tiles are.
        quality: JPEG quality, 1 to 100, of tiles compressed anew; when omitted they are PNG, which
            keeps every pixel. A model trained on JPEG has seen other pixels than the slides'.
        tiles_per_shard: most tiles in one file.
        workers: processes that write, each a slide at a time; 0 for this one.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from pathology.cohort.choice import make_engine
    from pathology.cohort.each_slide import each_slide
    from pathology.data.slide_list import list_slides
    from pathology.outputs import remove_drafts, writable_folder

    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality must be in 1 to 100, got {quality}")
    if tiles_per_shard < 1:
        raise ValueError(f"tiles_per_shard must be at least 1, got {tiles_per_shard}")
    table = list_slides(slides)
    work = PackOne(tiles, writable_folder(out), tiles_per_shard, quality)
    remove_drafts(out, _drafts(out, table["slide_id"]))
    engine = make_engine(workers=workers)
    return each_slide(table, work, "packing", engine=engine, keep_going=keep_going)


@dataclass(frozen=True, slots=True)
class PackOne:
    """The work on one slide, in whatever process."""

    tiles: Path
    out: Path
    tiles_per_shard: int
    quality: int | None

    def __call__(self, row: dict[str, Any]) -> str:
        """Pack the slide of a manifest's row; returns what to say about it."""
        from pathology.data.grids import grid_path, load_grid, open_tiled
        from pathology.data.shards import Shards, check_stamp, pack_slide, slide_stamp

        grid = load_grid(grid_path(self.tiles, row), row)
        path = grid_path(self.out, row)
        before = path.exists()
        if before:
            packed = Shards.load(path)
            wanted = slide_stamp(path.stem, grid, self.tiles_per_shard, self.quality)
            check_stamp(path, packed.stamp, wanted)
            packed.check_files(self.out)
        else:
            with open_tiled(row, grid) as slide:
                packed = pack_slide(slide, grid, path, self.tiles_per_shard, self.quality)
        size = sum(packed.sizes.values()) / 2**20
        done = ", packed before with the same settings" if before else ""
        return (
            f"{path}: {len(grid)} tiles in {len(packed.sizes)} shards, {size:.1f} MiB;"
            f" {packed.passed_through} are the file's own JPEG{done}"
        )


def _drafts(out: Path, slide_ids: Iterable[str]) -> list[str]:
    """These slides' files of which there are drafts; a slide's number of shards is unknown."""
    from pathology.data.shards import shard_name
    from pathology.outputs import DRAFT_END, drafted

    names = [drafted(path) or "" for path in out.glob(f".*{DRAFT_END}")]
    slides = set(slide_ids)
    shards = {shard_name(slide) for slide in slides}
    return [
        name
        for name in names
        if name.removesuffix(".parquet") in slides
        or name.removesuffix(".tar").rpartition("-")[0] in shards
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(pack, arguments)
