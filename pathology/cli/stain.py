"""``pathology stain``: the colours of slides, fitted once, and a page to look at."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function
from pathology.errors import ManifestError, PathologyError, StampMismatchError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pathology.stain import StainProfile, StainSettings
    from pathology.stain.sheet import SheetSlide

SHEET, FAILURES = "sheet.html", "failures.csv"
SHOWN_SLIDES, SHOWN_TILES, SHOWN_DRAWS = 40, 5, 5


def stain(
    slides: Path,
    tiles: Path,
    out: Path,
    method: Literal["macenko", "vahadane", "reinhard"] = "macenko",
    target: str | None = None,
    white: float | Literal["glass"] = 240.0,
    count: int = 100,
    seed: int = 0,
    mpp: float | None = None,
    workers: int = 0,
    keep_going: bool = False,
) -> int:
    """Fit the stain profile of each slide, for `train --data.stains OUT`.

    Writes OUT/SLIDE.json for each slide, OUT/target.json, which all slides are made to look like,
    and OUT/sheet.html with tiles before and after; OUT/failures.csv if any failed. Pixels are not
    written: tiles are normalised as they are read. A run that was stopped goes on where it was.

    Args:
        slides: manifest (slides.csv), folder of slides, or one slide.
        tiles: folder that `pathology tile` wrote.
        out: folder for the profiles.
        method: macenko, vahadane or reinhard.
        target: slide_id of one of the slides, an image file, or the target.json of slides fitted
            before; the published reference of Macenko's method when omitted. Reinhard's has none.
        white: light, of 255, that counts as glass; or glass: each slide's own colour of it, for
            scanners with tinted light: where the sheet shows coloured glass.
        count: tiles of each slide that are looked at, drawn at random.
        seed: which tiles are drawn.
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        workers: processes that work on a slide each; 0: this one.
        keep_going: list slides that fail at the end (exit code 3) rather than stop.
    """
    from pathology.cohort.choice import make_engine
    from pathology.cohort.each_slide import each_slide
    from pathology.data.slide_list import list_slides
    from pathology.outputs import writable_folder
    from pathology.stain import StainSettings
    from pathology.stain.folder import TARGET

    settings = StainSettings(method, white, tiles=count, seed=seed)
    table = list_slides(slides, mpp)
    if (table["slide_id"] == TARGET).any():
        raise ManifestError(
            f"{slides}: a slide is called {TARGET!r}, as the file of the target is; rename it"
        )
    writable_folder(out)
    _check_settings(out, settings)
    fit = _Fit(tiles, out, settings)
    profile = _target(target, table, fit, slides)
    _keep(profile, out / f"{TARGET}.json")
    code = each_slide(
        table,
        fit,
        "fitting stains",
        engine=make_engine(workers=workers),
        keep_going=keep_going,
        failures=out / FAILURES,
    )
    _write_sheet(table, fit, profile, out / SHEET)
    print(f"{out / SHEET}: tiles before and after, the farthest from the target first")
    return code


@dataclass(frozen=True, slots=True)
class _Fit:
    """The work on one slide."""

    tiles: Path
    out: Path
    settings: "StainSettings"

    def __call__(self, row: dict[str, Any]) -> str:
        profile, made = self.profile(row)
        path = self.out / f"{row['slide_id']}.json"
        pixels = profile.source.pixels if profile.source else 0
        line = f"{path}: {profile.method}, from {pixels:,} stained pixels"
        return line if made else f"{line}, made before by the same settings"

    def profile(self, row: dict[str, Any]) -> "tuple[StainProfile, bool]":
        """A slide's profile from its file, or fitted and saved; whether it was fitted.

        Raises:
            StampMismatchError: the file is of another slide, other tiles or other settings.
        """
        from pathology.data.grids import grid_path, load_grid, open_tiled
        from pathology.stain import StainProfile, fit_profile
        from pathology.stain.fit import tiles_digest

        path = self.out / f"{row['slide_id']}.json"
        grid = load_grid(grid_path(self.tiles, row), row)
        if path.is_file():
            before = StainProfile.load(path)
            source = before.source
            if source is None or source.stamp != grid.source.stamp:
                raise _other(path, "another slide")
            if source.tiles != tiles_digest(grid):
                raise _other(path, "other tiles")
            if before.settings != self.settings:
                raise _other(path, f"other settings, {before.settings}")
            return before, False
        with open_tiled(row, grid) as slide:
            profile = fit_profile(slide, grid, self.settings)
        profile.save(path)
        return profile, True


def _check_settings(out: Path, settings: "StainSettings") -> None:
    """Refuse a folder whose slides were fitted otherwise.

    Raises:
        StampMismatchError: naming one of them.
    """
    from pathology.stain import StainProfile
    from pathology.stain.folder import TARGET

    for path in sorted(out.glob("*.json")):
        # What is no profile, or a damaged one, says nothing; its slide is reported in its turn.
        with suppress(ManifestError):
            before = StainProfile.load(path)
            if path.stem == TARGET and before.method != settings.method:
                raise _other(path, f"method {before.method}")
            if path.stem != TARGET and before.settings != settings:
                raise _other(path, f"other settings, {before.settings}")
            if path.stem != TARGET:
                return  # the others are like this one


def _other(path: Path, what: str) -> StampMismatchError:
    return StampMismatchError(
        f"{path}: holds a stain profile fitted with {what}; choose another --out, or remove it"
    )


def _target(target: str | None, table: "pd.DataFrame", fit: _Fit, slides: Path) -> "StainProfile":
    """The profile that ``--target`` names."""
    from pathology.data.image_files import read_image
    from pathology.stain import StainProfile, fit_image, reference_profile

    if target is None:
        try:
            return reference_profile(fit.settings.method)
        except ValueError as error:
            raise ValueError(f"--target: {error}") from error
    rows = table[table["slide_id"] == target].to_dict("records")
    if rows:
        return fit.profile({str(key): value for key, value in rows[0].items()})[0]
    if not Path(target).is_file():
        raise ValueError(
            f"--target {target!r} is neither the slide_id of a slide in {slides} nor a file: an"
            " image, or the target.json of other slides"
        )
    if Path(target).suffix == ".json":
        profile = StainProfile.load(target)
        if profile.method != fit.settings.method:
            raise ValueError(f"--target {target} is of method {profile.method}; give that --method")
        return profile
    return fit_image(read_image(target), fit.settings, Path(target).name)


def _keep(target: "StainProfile", path: Path) -> None:
    """Write the target, or see that it is the one that is there.

    Raises:
        StampMismatchError: another one is there.
    """
    from pathology.stain import StainProfile

    if not path.is_file():
        target.save(path)
        return
    before = StainProfile.load(path)
    if before.digest() != target.digest():
        raise StampMismatchError(
            f"{path}: the target here is {before.name} by {before.method}, asked for {target.name}"
            f" by {target.method}{'' if before.name != target.name else ', with other numbers'};"
            " choose another --out"
        )


def _write_sheet(table: "pd.DataFrame", fit: _Fit, target: "StainProfile", path: Path) -> None:
    """The page of all slides that have a profile, whether fitted now or before."""
    from pathology.stain.sheet import SheetSlide, distance, write_sheet

    found: list[tuple[StainProfile, dict[str, Any]]] = []
    for record in table.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        if (fit.out / f"{row['slide_id']}.json").is_file():
            # One that is listed among the failures is not shown.
            with suppress(PathologyError):
                found.append((fit.profile(row)[0], row))
    found.sort(key=lambda pair: -distance(pair[0], target))
    slides, tile = [], None
    for place, (profile, row) in enumerate(found):
        slide = SheetSlide(str(row["slide_id"]), profile)
        if place < SHOWN_SLIDES:
            # One that is damaged where it was not looked at is listed without tiles.
            with suppress(PathologyError):
                slide = _shown(fit, row, profile, target)
                tile = slide.after[0]
        slides.append(slide)
    write_sheet(target, slides, path, None if tile is None else _augmented(tile))


def _shown(
    fit: _Fit, row: dict[str, Any], profile: "StainProfile", target: "StainProfile"
) -> "SheetSlide":
    """Some tiles of a slide, from its first to its last, before and after."""
    import numpy as np
    import torch

    from pathology.data.grids import grid_path, load_grid, open_tiled
    from pathology.stain import StainNormaliser
    from pathology.stain.sheet import SheetSlide

    grid = load_grid(grid_path(fit.tiles, row), row)
    places = np.unique(np.linspace(0, len(grid) - 1, SHOWN_TILES + 2).astype(int)[1:-1])
    with open_tiled(row, grid) as slide:
        before = np.stack([slide.read(grid[int(i)].box, grid.spec.mpp) for i in places])
    tiles = torch.from_numpy(before).permute(0, 3, 1, 2)
    after = StainNormaliser(target)(tiles, profile).permute(0, 2, 3, 1).numpy()
    return SheetSlide(str(row["slide_id"]), profile, list(before), list(after))


def _augmented(tile: "NDArray[Any]") -> "dict[str, Sequence[NDArray[Any]]]":
    """Variants of a tile by each augmentation."""
    import torch

    from pathology.data.augment import AUGMENTATIONS, BatchAugmentation

    batch = torch.from_numpy(tile).permute(2, 0, 1).repeat(SHOWN_DRAWS, 1, 1, 1)
    return {
        name: list(
            BatchAugmentation(strengths)(batch, torch.Generator().manual_seed(0))
            .permute(0, 2, 3, 1)
            .numpy()
        )
        for name, strengths in AUGMENTATIONS.items()
        if name != "none"
    }


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(stain, arguments)
