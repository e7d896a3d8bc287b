"""StainFolder: what `pathology stain` wrote, as training, evaluation and explanation use it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pathology.errors import ManifestError, StampMismatchError
from pathology.slides.colour import ColourSpace
from pathology.stain.normaliser import StainNormaliser
from pathology.stain.profile import StainProfile

TARGET = "target"


class StainFolder:
    """A target and the profiles of slides, ``target.json`` beside ``<slide_id>.json``.

    Args:
        folder: what ``pathology stain`` wrote.

    Raises:
        ManifestError: it holds no target.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / f"{TARGET}.json"
        if not path.is_file():
            raise ManifestError(
                f"{path}: no target of stain normalisation; run `pathology stain` first"
            )
        self.target = StainProfile.load(path)

    def profile(self, slide_id: str, stamp: str, colour: ColourSpace) -> StainProfile:
        """The profile of a slide.

        Args:
            slide_id: its name in the manifest.
            stamp: its fingerprint.
            colour: the pixels that its tiles show.

        Raises:
            ManifestError: there is none, or it is damaged.
            StampMismatchError: it was made of another slide, or of its pixels in another colour, or
                by another method than the target.
        """
        path = self.folder / f"{slide_id}.json"
        if not path.is_file():
            raise ManifestError(
                f"{path}: no stain profile of slide {slide_id!r}; run `pathology stain` on it with"
                " the same --out"
            )
        profile = StainProfile.load(path)
        if profile.source is None or profile.source.stamp != stamp:
            raise StampMismatchError(
                f"{path}: the stain profile was fitted on another slide; run `pathology stain` with"
                " another --out, or remove the file"
            )
        if profile.source.colour != colour:
            raise StampMismatchError(
                f"{path}: the stain profile was fitted on {profile.source.colour} colours, the"
                f" tiles are of {colour} ones; run `pathology stain` on these with another --out"
            )
        if profile.method != self.target.method:
            raise StampMismatchError(
                f"{path}: made by {profile.method}, the target beside it by {self.target.method};"
                " run `pathology stain` with another --out"
            )
        return profile

    def normaliser(self) -> StainNormaliser:
        """What makes tiles look like the target."""
        return StainNormaliser(self.target)

    def digest(self, slide_ids: Iterable[str] = ()) -> str:
        """Fingerprint of the target and of these slides' profiles, 16 hex digits."""
        content = hashlib.sha256(self.target.digest().encode())
        for slide_id in slide_ids:
            path = self.folder / f"{slide_id}.json"
            known = StainProfile.load(path).digest() if path.is_file() else "none"
            content.update(f"{slide_id}:{known}".encode())
        return content.hexdigest()[:16]
