"""Features of tiny slides by the command line, with accidents, held against a run without."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from pathology.cohort.records import Record, record_name
from tests.cli.made_slides import write_slides

WORKER_CPUS = 2  # one for the encoder, one for the reader
CUT = ["--size-px", "32", "--tile-mpp", "2", "--min-tissue", "0.1"]

# Each process counts its batches; `kill.7` kills the first that comes to its seventh.
STUMBLING = """
import os, signal, time
from pathlib import Path
from pathology.data.encoders import timm_encoder

FAULTS = Path({faults!r})
SMALL = {{"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}}
batch = 0

def encoder():
    made = timm_encoder("vit_tiny_patch16_224", seed=3, arguments=SMALL)
    made.module.register_forward_pre_hook(stumble)
    return made

def stumble(*_):
    global batch
    batch += 1
    with (FAULTS / "batches").open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    kill, wait = FAULTS / f"kill.{{batch}}", FAULTS / f"wait.{{batch}}"
    if kill.exists():
        kill.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if wait.exists():
        (FAULTS / f"{{batch}}.{{os.getpid()}}.waits").touch()
        began = time.monotonic()
        while not (FAULTS / "go").exists() and time.monotonic() - began < 300:
            time.sleep(0.02)
"""


class Features:
    """Slides, their tiles, an encoder that stumbles, and the features of a clean run.

    Args:
        folder: an empty one.
        count: of slides.
    """

    def __init__(self, folder: Path, count: int) -> None:
        from pathology.cli import main

        self.folder, self.faults = folder, folder / "faults"
        self.slides = [path.stem for path in write_slides(folder / "slides", count)]
        tiles = ["tile", "--slides", folder / "slides", "--out", folder / "tiles", *CUT]
        assert main([str(word) for word in tiles]) == 0
        (folder / "stumbling.py").write_text(STUMBLING.format(faults=str(self.faults)))
        self.faults.mkdir()
        code, said = self.run(folder / "clean")
        assert code == 0, said
        self.wanted = read_all(folder / "clean")
        self.clear()

    def clear(self) -> None:
        """Forget the accidents."""
        for path in self.faults.iterdir():
            path.unlink()

    def fault(self, *names: str) -> None:
        """Ask for accidents: ``kill.7``."""
        for name in names:
            (self.faults / name).touch()

    def start(self, out: Path | str, *more: str) -> "subprocess.Popen[str]":
        """The command line begins."""
        words = [
            "features", "--slides", "slides", "--tiles", "tiles", "--out", str(out), "--encoder",
            "stumbling:encoder", "--device", "cpu", "--batch-size", "16",
            "--readers", "1", *more,
        ]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "pathology.cli", *words],
            cwd=self.folder,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, out: Path | str, *more: str) -> tuple[int, str]:
        """The command line, to its end: its exit code, and what it said."""
        return end(self.start(out, *more))

    @property
    def batches(self) -> int:
        """That were encoded."""
        path = self.faults / "batches"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def check(self, out: Path) -> None:
        """Every slide has its features, the same bytes as of a clean run, and one record of it."""
        assert read_all(out) == self.wanted
        for name in self.slides:
            record = Record.from_json((out / record_name("features", name)).read_bytes())
            assert (record.slide_id, record.state) == (name, "done")
            (file,) = record.files
            assert file == f"{name}.h5"
            assert record.files[file].sha256 == hashlib.sha256(self.wanted[file]).hexdigest()
        assert list(out.rglob("*.part")) == []


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the end of a command line: its exit code, and what it said."""
    try:
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    return process.returncode, said


def error_line(said: str) -> str:
    """The line that a command line ends with when it fails."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("pathology features: ")]
    assert len(lines) == 1, said
    return lines[0]


def read_all(folder: Path) -> dict[str, bytes]:
    """The features in a folder, by file."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.h5"))}
