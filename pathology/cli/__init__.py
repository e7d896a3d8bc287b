"""The command line: ``pathology VERB ...``.

Verbs are imported when asked for, so that ``--help`` answers at once. Errors that are ours to
explain
become one line on stderr and exit code 2; ``--traceback`` before the verb shows where they arose.
"""

import importlib
import sys
from collections.abc import Sequence

# verb -> what it does; the module pathology.cli.<verb> has a function main(arguments) -> exit code.
VERBS = {
    "data": "check data sets on your disk, write and split their manifests",
    "tile": "find tissue on slides and cut it into tiles",
    "annotations": "say what was drawn on slides, and write it for QuPath",
    "stain": "fit the colours of slides, to normalise them",
    "pack": "pack tiles into shards, to train without the slides",
    "features": "write what an encoder returns for each tile, to train on whole slides",
    "train": "train a model on labelled tiles",
    "evaluate": "measure a trained model, with intervals",
    "calibrate": "fit temperatures and thresholds on validation",
    "summarise": "mean, spread and differences of runs: seeds, folds, twins",
    "froc": "score detections of lesions as CAMELYON16 does",
    "explain": "write exact slide-level heatmaps of a trained model",
    "view": "show explanations beside their slides, in a browser",
    "benchmark": "measure what models cost beside conventional ones",
    "configs": "write the configs that come with this version into a folder",
    "demo": "the whole job on made-up slides",
    "doctor": "say what this installation lacks; a made-up slide through the whole chain",
}

USAGE = "usage: pathology [--traceback] VERB [options]"


def help_text() -> str:
    """What ``pathology --help`` prints."""
    verbs = "\n".join(f"  {verb:<11} {line}" for verb, line in VERBS.items())
    return (
        f"{USAGE}\n\nExactly explained predictions on whole slides.\n\nverbs:\n{verbs}\n\n"
        "`pathology VERB --help` tells the options of a verb.\n"
        "exit codes: 0 done, 1 a fault of ours, 2 something to correct (one line says what),\n"
        "            3 done except for the slides listed (--keep-going)"
    )


def one_line(error: Exception) -> str:
    """An error's message in one line; of one that a reading process met, only the message."""
    text = str(error).strip()
    if " in DataLoader worker process " in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    traceback = rest[:1] == ["--traceback"]
    if traceback:
        rest = rest[1:]
    if not rest or rest[0] in ("-h", "--help"):
        print(help_text())
        return 0 if rest else 2
    if rest[0] == "--version":
        from bcos_vit import __version__

        print(__version__)
        return 0
    verb = rest[0]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(VERBS)}"
        print(f"pathology: no verb is called {verb!r}{hint}", file=sys.stderr)
        return 2

    from bcos_vit.errors import BcosError
    from pathology.errors import PathologyError

    try:
        code: int = importlib.import_module(f"pathology.cli.{verb}").main(rest[1:])
    # ValueError: an argument that its class refused when it was constructed.
    except (BcosError, PathologyError, ValueError) as error:
        if traceback:
            raise
        print(f"pathology {verb}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"pathology {verb}: interrupted; run it again to continue", file=sys.stderr)
        return 130
    return code
