"""Whether files are what they should be: there, whole, of the right size, and each but once."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from pathology.data.image_files import is_array, read_image, split_name
from pathology.data.open_data.open_set import Found, Kind, Problem
from pathology.errors import AnnotationError, ManifestError, MissingResolutionError, SlideError

Decode = Literal["sample", "all", "none"]
Progress = Callable[..., Iterable[Any]]

SAMPLE = 500  # images that are decoded when not all are
HEAD = 2**14  # bytes that tell most files of one size apart


def _silent(items: Iterable[Any], desc: str, total: int | None = None) -> Iterable[Any]:
    return items


def check_files(
    found: Found,
    kind: Kind,
    decode: Decode = "sample",
    duplicates: bool = True,
    checksums: bool = False,
    progress: Progress = _silent,
) -> list[Problem]:
    """What is wrong with the files of a data set.

    Args:
        found: the set.
        kind: whether its files are images or slides.
        decode: which images to decode, or slides to read a piece of, with their regions.
        duplicates: look for files with the same contents.
        checksums: compute the checksums of files that have a published one.
        progress: wraps what is gone through, with ``desc`` and ``total``.

    Returns:
        The problems; none when all is well. Slides that do not say their mpp become a note.
    """
    empty = empty_files(found.table)
    problems = [Problem("files without contents", tuple(empty))] if empty else []
    table = found.table[~found.table["path"].isin(empty)].reset_index(drop=True)
    if decode != "none" and len(table):
        rows = range(len(table))
        if decode == "sample" and len(table) > SAMPLE:
            picked = np.random.default_rng(0).choice(len(table), SAMPLE, replace=False)
            rows = sorted(picked.tolist())  # type: ignore[assignment]
        wrong, unscaled = _decoded(found, table, rows, kind, progress)
        problems += wrong
        if unscaled:
            found.notes.append(
                f"{unscaled:,} of {len(rows):,} slides read do not say their micrometres per pixel:"
                " give --mpp to `pathology tile`, or the manifest a column mpp"
            )
    if duplicates and len(table):
        problems += _duplicates(table, progress)
    if checksums:
        problems += _checksums(found.checksums, progress)
    return problems


def empty_files(table: pd.DataFrame) -> list[str]:
    """Files of zero bytes, or gone since they were listed."""
    return [path for path in table["path"].unique() if not _size(path)]


def _size(path: str) -> int:
    try:
        return split_name(path)[0].stat().st_size
    except OSError:
        return 0


def _decoded(
    found: Found, table: pd.DataFrame, rows: Sequence[int], kind: Kind, progress: Progress
) -> tuple[list[Problem], int]:
    """What cannot be read or has another size; how many slides do not tell their mpp."""
    size_px = found.size_px
    classes = found.regions(table) if found.regions and "regions" in table else {}
    broken, wrong = [], []
    unscaled = 0
    for i in progress(rows, desc="reading", total=len(rows)):
        path = table["path"].iloc[i]
        index = table["index"].iloc[i] if "index" in table else None
        try:
            if kind == "slides":
                unscaled += not _reads_slide(
                    path, table["regions"].iloc[i] if classes else "", classes
                )
                continue
            height, width, _ = read_image(path, index).shape
        except (ManifestError, SlideError, AnnotationError) as error:
            said = str(error).removeprefix(f"{path}: ").split("; ")[0]
            broken.append(f"{path}{'' if index is None else f' [{index}]'}: {said}")
            continue
        if size_px is not None and (width, height) != size_px:
            wrong.append(f"{path} ({width} x {height})")
    problems = []
    if broken:
        problems.append(Problem(f"of {len(rows):,} {kind} read, unreadable", tuple(broken)))
    if wrong:
        assert size_px is not None
        what = f"of {len(rows):,} {kind} read, not {size_px[0]} x {size_px[1]} px"
        problems.append(Problem(what, tuple(wrong)))
    return problems, unscaled


def _reads_slide(path: str, regions: str, classes: Mapping[str, Any]) -> bool:
    """Read the middle of a slide and its regions; False when it does not tell its pixels' size."""
    from pathology.annotations import Classes, read_regions
    from pathology.geometry import Box
    from pathology.slides import open_slide

    known = True
    try:
        slide = open_slide(path)
    except MissingResolutionError:
        # To read it any value will do.
        slide, known = open_slide(path, mpp=1.0), False
    with slide:
        x, y = slide.size.width / 2, slide.size.height / 2
        slide.read(Box(x, y, min(64, x), min(64, y)), mpp=max(slide.mpp.x, slide.mpp.y))
        if regions:
            read_regions(regions, slide, Classes.of(classes))
    return known


def _duplicates(table: pd.DataFrame, progress: Progress) -> list[Problem]:
    """Contents that are there twice: across splits, or under two labels."""
    groups = [g for g in _same_contents(table, progress) if len(g) > 1]
    problems = []
    for column, what in (
        ("split", "the same image in more than one split (leakage)"),
        ("label", "the same image under more than one label"),
    ):
        if column not in table:
            continue
        values = table[column].to_numpy()
        mixed = [g for g in groups if len(set(values[g])) > 1]
        if mixed:
            problems.append(
                Problem(what, tuple(" = ".join(_where(table, i, column) for i in g) for g in mixed))
            )
    return problems


def _where(table: pd.DataFrame, i: int, column: str) -> str:
    place = f" [{table['index'].iloc[i]}]" if "index" in table else ""
    return f"{table['path'].iloc[i]}{place} ({table[column].iloc[i]})"


def _same_contents(table: pd.DataFrame, progress: Progress) -> Iterator[list[int]]:
    """Rows of each contents, as places in the table."""
    paths: list[str] = table["path"].tolist()
    arrays = {path for path in set(paths) if is_array(path)}
    files: dict[int, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        if path not in arrays:
            files[_size(path)].append(i)
    # Files of another size differ; of those that are left few begin alike.
    alike: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    rows = [i for same in files.values() if len(same) > 1 for i in same]
    for i in progress(rows, desc="comparing", total=len(rows)):
        alike[_size(paths[i]), _digest(paths[i], HEAD)].append(i)
    rows = [i for same in alike.values() if len(same) > 1 for i in same]
    whole: dict[bytes, list[int]] = defaultdict(list)
    for i in progress(rows, desc="comparing whole files", total=len(rows)):
        whole[_digest(paths[i])].append(i)
    if arrays:
        for i, digest in _row_digests(table, arrays, progress):
            whole[digest].append(i)
    yield from whole.values()


def _digest(path: str, limit: int | None = None) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            if limit is not None:
                digest.update(file.read(limit))
            else:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError:
        digest.update(path.encode())  # unreadable: like no other
    return digest.digest()


def _row_digests(
    table: pd.DataFrame, arrays: set[str], progress: Progress
) -> Iterator[tuple[int, bytes]]:
    rows = table.index[table["path"].isin(arrays)]
    for i in progress(rows, desc="comparing", total=len(rows)):
        try:
            pixels = read_image(table["path"].iloc[i], table["index"].iloc[i])
        except ManifestError:
            continue  # said already, where it was decoded
        yield i, hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _checksums(wanted: dict[Path, str], progress: Progress) -> list[Problem]:
    wrong = []
    for path in progress(sorted(wanted), desc="checksums", total=len(wanted)):
        got = md5(path)
        if got != wanted[path].lower():
            wrong.append(f"{path} (MD5 {got}, published {wanted[path]})")
    return [Problem("files whose checksum is not the published one", tuple(wrong))] if wrong else []


def md5(path: Path) -> str:
    """MD5 of a file, in hex digits: what archives publish, no proof against malice."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
