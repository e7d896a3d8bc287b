"""``pathology view``: explanations beside their slides, in a browser."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pathology.cli.run_function import run_function

if TYPE_CHECKING:
    from pathology.viewer.library import Library


def view(
    slides: Path,
    results: str | list[str],
    blind: Path | None = None,
    mpp: float | None = None,
    recursive: bool = False,
    port: int = 8000,
    host: str = "127.0.0.1",
    allow_remote: bool = False,
    no_browser: bool = False,
) -> int:
    """Show explanations beside their slides in a browser, until Ctrl-C.

    The page is at the address that is printed, for this machine alone; the token in the address is
    its password.

    Args:
        slides: manifest (slides.csv), folder of slides, or one slide.
        results: folder that `pathology explain` wrote, or a folder of several runs'; several as
            "[cnn, vit]".
        blind: file of a reader's calls (CSV), made or gone on with. What the models say of a slide
            is hidden until the reader has committed a call.
        mpp: micrometres per pixel of slides that do not say it themselves.
        recursive: look for slides in the folder's folders, too.
        port: of the page; the next one that is free when it is taken, 0 for any.
        host: address to listen at.
        allow_remote: listen at an address that other machines can reach. All they send and see can
            be read on the way; a tunnel (ssh -L 8000:localhost:8000) is safer.
        no_browser: print the address only.
    """
    from pathology.viewer.access import is_local

    if not is_local(host) and not allow_remote:
        raise ValueError(
            f"--host {host}: other machines could see the slides; add --allow-remote if they may"
        )
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {port}")

    from pathology.errors import MissingExtraError
    from pathology.viewer.library import Library

    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'the viewer needs starlette and uvicorn: pip install "bcos-pathology[viewer]"'
        ) from error
    from pathology.viewer.app import make_app
    from pathology.viewer.serve import serve

    folders = [results] if isinstance(results, str) else results
    library = Library.find(
        slides, [Path(folder) for folder in folders], mpp, blind, recursive=recursive
    )
    print(_summary(library))
    serve(make_app(library), host, port, open_browser=not no_browser)
    library.close()
    print("stopped")
    return 0


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
