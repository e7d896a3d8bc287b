"""Use an installed bcos-pathology as a newcomer does; run by ``scripts/try_release.py``.

In an empty folder, with the Python of the environment; the arguments are the extras that it has.
Nothing of the source tree is imported.
"""

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urljoin

import bcos_vit
import pathology

COMMAND = Path(sys.prefix) / "bin" / "pathology"
# Modules of the extras, by the name under which they are imported.
OPTIONAL = {"anyio", "anywidget", "ray", "sklearn", "starlette", "traitlets", "uvicorn", "zarr"}


def said(*words: object, code: int = 0) -> str:
    """What the console script prints, on both streams."""
    done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == code, f"pathology {words}: exit code {done.returncode}\n{text}"
    return text


def check_origin() -> None:
    """Packages are those of this environment, of one version, and tell their types."""
    for package in (bcos_vit, pathology):
        home = Path(package.__file__).parent
        assert home.is_relative_to(sys.prefix), f"imported from {home}, not from {sys.prefix}"
        assert (home / "py.typed").is_file()
    version = bcos_vit.__version__
    assert importlib.metadata.version("bcos-pathology") == version
    assert said("--version").strip() == version


def check_doctor(extras: set[str]) -> None:
    """It is well, and names the extras that are not here."""
    text = said("doctor")
    assert text.endswith("all well\n"), text
    told = dict(re.findall(r"^  extra (\w+) +(.*)$", text, re.MULTILINE))
    for extra, line in told.items():
        is_there = line == "installed"
        assert is_there or f'pip install "bcos-pathology[{extra}]"' in line, line
        assert is_there or extra not in extras, f"[{extra}] lacks something: {line}"
        assert extras or not is_there, f"[{extra}] is here without having been asked for"
    assert extras <= told.keys()


def check_imports() -> None:
    """Every module can be imported with what the metadata asks for, but for those of extras."""
    for package in (bcos_vit, pathology):
        names = [
            each.name
            for each in pkgutil.walk_packages(
                package.__path__, package.__name__ + ".", onerror=lambda _: None
            )
        ]
        for name in names:
            if name.endswith("__main__"):
                continue
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if str(error.name).partition(".")[0] not in OPTIONAL:
                    raise


def check_job() -> None:
    """The configs are at hand; one of them trains, and what it trained is explained."""
    from pathology.cli import main
    from pathology.cli.lightning_train import make_parser_arguments
    from pathology.synthetic import make_cohort

    assert main(["configs", "--out", "configs"]) == 0
    recipes = sorted(Path("configs/train").glob("*.yaml"))
    assert len(recipes) > 20
    slides = make_cohort("demo/slides", train=1, val=1, test=1, size_px=(1024, 1024), seed=7)
    tile = ["tile", "--slides", str(slides), "--out", "demo/tiles"]
    assert main([*tile, "--size-px", "64", "--tile-mpp", "0.5"]) == 0
    assert main(["train", "--config", "configs/smoke/bcos_vitc_tiny.yaml", "--out", "run"]) == 0
    explain = ["explain", "--run", "run", "--tiles", "demo/tiles", "--target", "tumour"]
    assert main([*explain, "--slides", "demo/slides/test_000.tif", "--out", "explained"]) == 0
    found = Path("explained/test_000/tumour")
    assert "gap" in (found / "report.html").read_text()
    assert (found / "heatmap.ome.tif").is_file()
    tasks = [make_parser_arguments(["--config", str(path)])["task"] for path in recipes]
    assert set(tasks) == {"tiles", "slides"}


def check_viewer() -> None:
    """Its page, every script that the page loads, and its answers come from the package."""
    words = ["view", "--slides", "demo/slides/test_000.tif", "--results", "explained"]
    process = subprocess.Popen(
        [COMMAND, *words, "--port", "0", "--no-browser"], stdout=subprocess.PIPE, text=True
    )
    try:
        address = next(line.strip() for line in process.stdout if line.startswith("http"))
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        base = address.partition("?")[0]

        def get(path: str) -> str:
            with opener.open(path, timeout=60) as answer:
                assert answer.status == 200, path
                return answer.read().decode()

        page = get(address)
        loaded = [urljoin(base, name) for name in re.findall(r'(?:src|href)="([^"]+)"', page)]
        for path in loaded:  # grows by what each module imports
            imported = re.findall(r'(?:from|import)\s*\(?\s*"(\.\.?/[^"]+)"', get(path))
            found = (urljoin(path, name) for name in imported)
            loaded += [each for each in dict.fromkeys(found) if each not in loaded]
        assert len(loaded) > 50, loaded
        assert '"test_000"' in get(f"{base}api/library")
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == 0


def main() -> None:
    """All of it."""
    extras = set(sys.argv[1:])
    check_origin()
    check_doctor(extras)
    if "viewer" in extras:
        check_job()
        check_viewer()
    else:
        check_imports()
        refusal = said("view", "--slides", "x", "--results", "y", code=2)
        assert 'pip install "bcos-pathology[viewer]"' in refusal
        assert refusal.count("\n") == 1


if __name__ == "__main__":
    main()
