"""doctor: what is missing is named, with what to do about it; nothing else breaks over it."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from bcos_vit.kernels import build
from pathology.cli import doctor, installation
from pathology.cli.installation import EXTRAS, Line, look

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def said(pathology, monkeypatch):
    """Runs doctor, without its models unless all is well; returns exit code and lines by name."""

    def run():
        monkeypatch.setattr(doctor, "_chain", lambda _: "explained")
        code, out, _ = pathology("doctor")
        lines = [line for line in out.splitlines() if line.startswith("  ")]
        named = {line[2:20].strip(): line[21:] for line in lines if line[20] == " "}
        return code, named, out

    return run


@pytest.fixture
def without(monkeypatch):
    """Takes distributions away, as if they had never been installed."""

    def take(*names):
        version = importlib.metadata.version

        def pretended(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.metadata, "version", pretended)

    return take


def a_torch(monkeypatch, *, built, driver, devices=()):
    """A PyTorch of this kind beside a driver of that."""
    torch = SimpleNamespace(
        version=SimpleNamespace(cuda=built),
        cuda=SimpleNamespace(
            is_available=lambda: bool(devices),
            device_count=lambda: len(devices),
            get_device_name=lambda device: devices[device],
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(installation, "driver_cuda", lambda: driver)
    return installation.gpu()


def test_all_is_well_here(said):
    code, named, out = said()
    assert code == 0, out
    assert out.endswith("all well\n")
    assert re.match(r"3\.\d+\.\d+, ", named["Python"])
    assert named["torch"] == importlib.metadata.version("torch")
    assert "GB free" in named["temporary folder"]
    assert named["OpenSlide library"].count(".") >= 2


def test_every_extra_is_told():
    wanted = {name for name in PROJECT["optional-dependencies"] if name not in ("dev", "docs")}
    assert set(EXTRAS) == wanted


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_is_no_fault_and_has_its_line(said, monkeypatch, extra):
    for module in EXTRAS[extra][0]:
        monkeypatch.setitem(sys.modules, module, None)
    code, named, _ = said()
    assert code == 0
    assert f'pip install "bcos-pathology[{extra}]"' in named[f"extra {extra}"]
    assert EXTRAS[extra][1] in named[f"extra {extra}"]


def test_a_missing_requirement_is_named_with_its_bound(said, without):
    without("simplejpeg")
    code, named, out = said()
    assert code == 2
    bound = next(line for line in PROJECT["dependencies"] if line.startswith("simplejpeg"))
    assert named["simplejpeg"] == f'missing; pip install "{bound}"'
    assert out.splitlines()[-1] == "to be mended first: simplejpeg"
    assert "explained" not in out


def test_without_torch_all_else_is_still_looked_at(said, without, monkeypatch):
    without("torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, named, out = said()
    assert code == 2
    assert named["torch"].startswith('missing; pip install "torch>=')
    assert named["GPU"].startswith("cannot be loaded")
    assert named["extra viewer"] == "installed"
    assert out.splitlines()[-1] == "to be mended first: torch, GPU"


def test_doctor_itself_needs_no_package(tmp_path):
    """Whatever is missing, it can say so: here, all that is not Python's own."""
    ours = tmp_path / "bcos_pathology-0.1.0.dist-info"
    ours.mkdir()
    asked = "".join(f"Requires-Dist: {each}\n" for each in PROJECT["dependencies"])
    (ours / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bcos-pathology\n{asked}")
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from pathology.cli import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "")
    for requirement in PROJECT["dependencies"]:
        name = re.match(r"[\w.-]+", requirement)[0]
        assert f"  {name:<18} missing; pip install" in done.stdout
    for extra in EXTRAS:
        assert f'pip install "bcos-pathology[{extra}]"' in done.stdout


def test_a_package_that_is_too_old(said, monkeypatch):
    version = importlib.metadata.version
    told = {"timm": "0.9.16", "tifffile": "2024.12.12"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: told.get(name) or version(name))
    code, named, _ = said()
    assert code == 2
    assert named["timm"].startswith('0.9.16 is too old; pip install "timm>=1')
    assert named["tifffile"].startswith("2024.12.12 is too old")


def test_a_package_newer_than_tested(said, monkeypatch):
    version = importlib.metadata.version
    told = {"timm": "9.1", "numpy": installation.tested_versions()["numpy"] + ".post1"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: told.get(name) or version(name))
    code, named, _ = said()
    assert code == 0
    assert named["newer than tested"].startswith("timm 9.1 (1.")
    assert "numpy" not in named["newer than tested"].partition(";")[0]
    path = re.search(r"--constraint (\S+)", named["newer than tested"])[1]
    assert "timm==" in Path(path).read_text()


@pytest.mark.parametrize(
    ("low", "high"), [("2.9", "2.11"), ("2.11.0", "2.11.1"), ("2024.1", "2025"), ("1", "1.0.1")]
)
def test_versions_are_compared_by_their_numbers(low, high):
    assert installation._numbers(low) < installation._numbers(high)
    assert installation._numbers(high) == installation._numbers(f"{high}.0+cpu")


def test_a_missing_openslide_library(said, monkeypatch):
    def broken(name, *_):
        if name == "openslide":
            raise OSError("libopenslide.so.1: cannot open shared object file")
        return real(name)

    real = importlib.import_module
    monkeypatch.setattr(installation.importlib, "import_module", broken)
    line = installation._safely("OpenSlide library", installation.openslide_library)
    assert line.is_wrong
    assert "libopenslide.so.1" in line.text
    assert 'pip install "openslide-bin>=' in line.text


def test_the_advice_on_openslide_is_that_of_the_metadata():
    assert "openslide-bin>=4.0.1" in PROJECT["dependencies"]


def test_a_temporary_folder_that_cannot_be_written(said, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, named, _ = said()
    assert code == 2
    assert "set TMPDIR" in named["temporary folder"]


def test_a_temporary_folder_that_is_nearly_full(monkeypatch):
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: SimpleNamespace(free=5e8))
    line = installation.temporary_folder()
    assert not line.is_wrong
    assert "0.5 GB free; " in line.text
    assert "set TMPDIR" in line.text


def test_no_compiler(monkeypatch):
    monkeypatch.setattr(build, "library", lambda _: None)
    monkeypatch.setattr(build, "_failures", {"float": "no C compiler called cc, gcc or clang"})
    text = installation.kernels()
    assert "apt install gcc" in text
    assert "more slowly" in text


def test_gpus(monkeypatch):
    two = a_torch(monkeypatch, built="13.2", driver=(13, 2), devices=["A", "A"])
    assert two == "2 x A (CUDA 13.2, driver for 13.2)"
    assert a_torch(monkeypatch, built="13.2", driver=None) == "none; everything runs on CPU"
    assert a_torch(monkeypatch, built=None, driver=None) == "none; everything runs on CPU"


@pytest.mark.parametrize(
    ("built", "driver", "advice"),
    [
        (None, (12, 8), "this PyTorch is for CPUs alone; install one for CUDA"),
        ("13.2", (12, 4), "the driver is for CUDA 12.4, this PyTorch for 13.2; renew the driver"),
        ("13.2", (13, 0), "PyTorch sees no device; see `nvidia-smi`"),
    ],
)
def test_a_gpu_that_is_not_used_is_told_why(monkeypatch, built, driver, advice):
    text = a_torch(monkeypatch, built=built, driver=driver)
    assert text.startswith("not used: ")
    assert advice in text


def test_a_line_each():
    for line in look():
        assert isinstance(line, Line)
        assert "\n" not in line.text
