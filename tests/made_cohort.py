"""Two tiny slides through `tile`, `features` and `explain`, and what these write."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.cli.made_slides import write_slide
from tests.made_run import write_run

NAMES = ["s0", "s1"]
VERBS = ["tile", "features", "explain"]
NOT_RESULTS = {"tile.yaml", "cohort.csv", "failures.csv"}  # they say where, or when
SETTINGS = {
    "tile": ["--size-px", "32", "--tile-mpp", "2.0", "--exclude", "none"],
    "features": [
        "--encoder", "vit_tiny_patch16_224", "--encoder-seed", "3", "--device", "cpu",
        "--readers", "1", "--encoder-args",
        "{img_size: 32, patch_size: 8, embed_dim: 24, depth: 2, num_heads: 2}",
    ],
    "explain": ["--target", "tumour", "--depth", "head", "--device", "cpu"],
}  # fmt: skip
MODEL, MODEL_ARGS = "bcos_vit_tiny_patch16_224", {"img_size": 32, "depth": 1}
OTHERS = {
    "tile": (["--min-tissue", "0.7"], "min_tissue 0.5, wanted 0.7"),
    "features": (["--precision", "bf16"], "precision fp32, wanted bf16"),
    "explain": (["--out-mpp", "4"], "out_mpp=8.0, asked for 4.0"),
}
"""Settings that do not go with the others, and what is said of them."""
SAME_EVERYWHERE = {
    "SOURCE_DATE_EPOCH": "1700000000",
    # Sums among other numbers of threads are rounded otherwise.
    "OMP_NUM_THREADS": str(torch.get_num_threads()),
}
"""Variables of the environment with which results are the same to the byte."""


@dataclass(frozen=True)
class MadeCohort:
    """Slides and a run, here; and results of all verbs, made in this process.

    Args:
        folder: of all of it, the results in folders by the names of the verbs.
    """

    folder: Path

    def words(self, verb: str, out: object, *more: object, **places: object) -> list[str]:
        """A command line; ``slides`` and ``tiles`` may be elsewhere."""
        slides = places.get("slides", self.folder / "slides")
        tiles = places.get("tiles", self.folder / "tile")
        words: list[object] = [verb, "--slides", slides, "--out", out, *SETTINGS[verb], *more]
        words += [] if verb == "tile" else ["--tiles", tiles]
        words += ["--run", self.folder / "run"] if verb == "explain" else []
        return [str(word) for word in words]

    def results(self, verb: str) -> dict[str, bytes]:
        """What a verb has written in this process."""
        return results_in(self.folder / verb)


def made_cohort(folder: Path) -> MadeCohort:
    """Make all of it, with ``SAME_EVERYWHERE`` set."""
    from pathology.cli import main

    assert SAME_EVERYWHERE.items() <= os.environ.items()
    for i, name in enumerate(NAMES):
        write_slide(folder / "slides" / f"{name}.tif", i, side=192)
    write_run(folder / "run", mpp=2.0, model=MODEL, model_args=MODEL_ARGS)
    made = MadeCohort(folder)
    for verb in VERBS:
        assert main(made.words(verb, folder / verb)) == 0
    return made


def results_in(folder: Path) -> dict[str, bytes]:
    """The results in a folder, by their names in it."""
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): (folder / name).read_bytes()
        for name in names
        if name.parts[0] != ".cohort" and name.as_posix() not in NOT_RESULTS
    }
