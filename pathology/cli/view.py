"""``pathology view``: explanations beside their slides, in a browser."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    from pathology.viewer.library.library import Library


def view(
    slides: Path,
    results: str | list[str],
    run: str | list[str] | None = None,
    blind: Path | None = None,
    mpp: float | None = None,
    recursive: bool = False,
    port: int = 8000,
    host: str = "127.0.0.1",
    allow_remote: bool = False,
    no_browser: bool = False,
    device: str = "auto",
    stains: Path | None = None,
    encoder: str | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    encoder_seed: int | None = None,
    encoder_args: dict[str, Any] | None = None,
    resize: bool = False,
    pixels: Literal["imagenet", "half", "clip", "model"] | None = None,
) -> int:
    """Show explanations beside their slides in a browser, until Ctrl-C.

    The page is at the address that is printed, for this machine alone; the token in the address is
    its password. Slides and results are read, never changed.

    Args:
        slides: manifest (slides.csv), folder of slides, or one slide.
        results: folder that `pathology explain` wrote, or a folder of several runs' folders; one
            or more.
        run: trained runs that were explained, to ask them about tiles and regions; one or more.
            They are loaded at the first question.
        blind: file of a reader's calls (CSV), made or gone on with. What models say of a slide is
            hidden until the reader has committed a call.
        mpp: micrometres per pixel of slides whose row does not say it, whatever their files say.
        recursive: look for slides in the folder's folders, too.
        port: of the page; the next one that is free where it is taken, 0 for any.
        host: address to listen at.
        allow_remote: listen at an address that other machines can reach. Whatever they are shown
            can be read on its way; a tunnel (ssh -L 8000:localhost:8000) is safer.
        no_browser: print the address, and open no browser.
        device: where --run computes: auto, cpu, cuda, ...
        stains: folder of the slides' stain profiles, for a run on normalised tiles; the run's own
            when omitted.
        encoder: for a run on slides, what made its features, as `pathology features` was told;
            likewise weights, pretrained, encoder_seed, encoder_args, resize and pixels.
        weights: file of weights for a timm name.
        pretrained: the weights that timm has under that name.
        encoder_seed: random weights.
        encoder_args: further arguments of timm.create_model.
        resize: resize tiles to the size that the encoder takes.
        pixels: mean and deviation that RGB is normalised by.
    """
    from pathology.maps.extras import imported

    for package in ("starlette", "uvicorn"):
        imported(package, "viewer")
    from pathology.viewer.serving.access import is_local

    if not is_local(host) and not allow_remote:
        raise ValueError(
            f"--host {host}: other machines could see the slides; add --allow-remote if they may"
        )
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {port}")
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise ValueError(f"--mpp must be micrometres per pixel above 0, got {mpp:g}")

    from pathology.runs.encoder_choice import EncoderChoice
    from pathology.viewer.app import make_app
    from pathology.viewer.library.library import Library
    from pathology.viewer.model.client import ModelClient
    from pathology.viewer.serving.serve import leave, serve

    library = Library.find(
        slides, [Path(folder) for folder in _several(results)], mpp, blind, recursive=recursive
    )
    choice = None
    if encoder is not None:
        choice = EncoderChoice(
            encoder, weights, pretrained, encoder_seed, encoder_args, resize, pixels
        )
    model = None if run is None else ModelClient(_several(run), device, choice, stains)
    if model is not None:
        model.check(entry.folder for entry in library.evidence)
    print(_summary(library))
    try:
        serve(make_app(library, model), host, port, open_browser=not no_browser)
    finally:
        if model is not None:
            model.close()
        library.close()
    with suppress(BrokenPipeError):  # of `pathology view | head`
        print("stopped", flush=True)
    return leave(0)


def _several(words: str | list[str]) -> list[str]:
    return [words] if isinstance(words, str) else words


def _summary(library: "Library") -> str:
    """What was found, and what cannot be shown."""
    slides, runs = len(library.slides), len(library.runs)
    lines = [
        f"{slides:,} {_plural('slide', slides)},"
        f" {len(library.evidence):,} {_plural('explanation', len(library.evidence))}"
        f" of {runs} {_plural('run', runs)}"
    ]
    if library.unmatched:
        names = list(dict.fromkeys(folder.parent.name for folder in library.unmatched))
        lines.append(
            f"left out: {len(library.unmatched):,}"
            f" {_plural('explanation', len(library.unmatched))} of slides that are not in --slides:"
            f" {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        )
    return "\n".join(lines)


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(view, arguments)
