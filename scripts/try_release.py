"""Install wheel and sdist, each into an empty environment, and use them there.

``python scripts/try_release.py dist``. What the package asks for is not fetched anew, which would
take gigabytes: of what is installed here, the distributions that its metadata names, and those that
these name, are linked into the environment, and no others. What is imported there without being
asked for is missing, as it would be at a user's.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.closure import closure

ROOT = Path(__file__).parents[1]
NAME = "bcos-pathology"
PACKAGES = ("bcos_vit", "pathology")
# Extras that each is tried with.
TRIED = {"*.whl": ("viewer",), "*.tar.gz": ()}


class Environment:
    """A virtual environment with one distribution of ours, and what that asks for.

    Args:
        folder: where it is made.
        archive: the wheel or the sdist.
    """

    def __init__(self, folder: Path, archive: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        subprocess.run([*pip, "--disable-pip-version-check", "--no-deps", str(archive)], check=True)
        (self.site,) = folder.glob("lib/python*/site-packages")

    @property
    def distribution(self) -> Distribution:
        """Ours, as installed."""
        (found,) = (each for each in distributions(path=[str(self.site)]) if each.name == NAME)
        return found

    def link_requirements(self, extras: tuple[str, ...]) -> int:
        """Link what our metadata asks for; returns how many distributions these are."""
        asked = wanted(self.distribution, extras)
        found = closure(asked)
        for each in found.values():
            for top in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
                link = self.site / top
                if not link.exists():
                    link.symlink_to(Path(str(each.locate_file(top))).resolve())
        return len(found)

    def files(self) -> dict[str, bytes]:
        """Our files in it, but for what tells where they are from."""
        return {
            str(file): Path(str(file.locate())).read_bytes()
            for file in self.distribution.files or ()
            if file.parts[0] in PACKAGES and file.suffix != ".pyc"
        }


def wanted(ours: Distribution, extras: tuple[str, ...]) -> list[str]:
    """Requirements in our metadata, with those of ``extras``."""
    found = []
    for text in ours.requires or ():
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found.append(str(requirement))
    return found


def of_the_tree() -> dict[str, bytes]:
    """What an installed package must hold: the tracked files, and those that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PACKAGES, "configs"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    files = {name: ROOT / name for name in listed if name and (ROOT / name).is_file()}
    files["constraints.txt"] = ROOT / "constraints.txt"
    return {
        name if name.startswith(PACKAGES) else f"pathology/{name}": path.read_bytes()
        for name, path in files.items()
    }


def differences(a: dict[str, bytes], b: dict[str, bytes]) -> Iterator[str]:
    """Names of files that are in one only, or not the same."""
    yield from sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def main() -> int:
    """Try both; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dist", type=Path, help="folder with one wheel and one sdist")
    dist = parser.parse_args().dist
    tree = of_the_tree()
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        for pattern, extras in TRIED.items():
            started = time.monotonic()
            (archive,) = dist.glob(pattern)
            environment = Environment(Path(scratch) / archive.suffix[1:], archive)
            count = environment.link_requirements(extras)
            if wrong := list(differences(environment.files(), tree)):
                print(f"{archive.name}: not as in the tree: {', '.join(wrong)}", file=sys.stderr)
                return 1
            work = Path(scratch) / f"{archive.suffix[1:]}-work"
            work.mkdir()
            done = subprocess.run(
                [environment.python, "-P", ROOT / "scripts" / "smoke.py", *extras], cwd=work
            )
            if done.returncode:
                print(f"{archive.name}: does not work where it is installed", file=sys.stderr)
                return 1
            print(
                f"{archive.name}: {len(tree)} files, {count} requirements linked,"
                f" works ({time.monotonic() - started:.0f} s)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
