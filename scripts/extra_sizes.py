"""How much each extra adds to an installation, as the table of docs/how-to/install.md.

``python scripts/extra_sizes.py``, where everything is installed (``scripts/setup dev``).
Requirements are those of pyproject.toml with all that they bring along; sizes are those of the
files that pip wrote (their ``RECORD``), without what Python compiles later.
"""

import platform
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pathology.cli.installation import EXTRAS
from scripts.closure import closure

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def size_mb(distributions: Mapping[str, Distribution]) -> float:
    """Of their files, in MB."""
    files = (file for each in distributions.values() for file in each.files or ())
    return sum(file.size or 0 for file in files) / 1e6


def gpu_only(base: Mapping[str, Distribution]) -> dict[str, Distribution]:
    """What PyTorch brings for NVIDIA's GPUs alone."""
    names = ("nvidia-", "cuda-", "triton")
    return {name: each for name, each in base.items() if name.startswith(names)}


def rows() -> list[tuple[str, str, int, float]]:
    """What is installed, what for, how many distributions it adds, and their MB."""
    base = closure(PROJECT["dependencies"])
    cuda = gpu_only(base)
    torch = {"torch": base["torch"]}
    others = {name: each for name, each in base.items() if name not in {*cuda, *torch}}
    found = [
        ("`bcos-pathology` alone", "every verb but `view`", len(base), size_mb(base)),
        ("... PyTorch itself", "", len(torch), size_mb(torch)),
        ("... CUDA", "NVIDIA's libraries and Triton, for GPUs alone", len(cuda), size_mb(cuda)),
        ("... all others", "", len(others), size_mb(others)),
    ]
    every: dict[str, Distribution] = {}
    for extra, (_, purpose) in EXTRAS.items():
        wanted = closure([*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]])
        added = {name: each for name, each in wanted.items() if name not in base}
        every |= added
        found.append((f"`[{extra}]`", purpose, len(added), size_mb(added)))
    found.append(("all extras together", "", len(every), size_mb(every)))
    return found


def table() -> str:
    """The rows in Markdown, above them when and where they were measured."""
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d}, {where}, PyTorch"
        f" {closure(['torch'])['torch'].version} (`python scripts/extra_sizes.py`):",
        "",
        "| install | for | packages | MB |",
        "|---|---|---|---|",
    ]
    for name, purpose, count, size in rows():
        shown = f"{size:,.0f}" if size >= 10 else f"{size:.1f}"
        lines.append(f"| {name} | {purpose} | {count} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
