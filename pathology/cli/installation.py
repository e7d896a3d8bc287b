"""What an installation has, what it lacks, and how to get that: the lines of ``pathology doctor``.

Nothing is imported here before it is looked at, so that each of them can be missing.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathology.cli.shipped import shipped

DISTRIBUTION = "bcos-pathology"
NAMED = ("torch", "timm", "monai", "lightning", "openslide-python", "tifffile", "scikit-image")
"""Requirements whose versions are told, each on a line of its own."""
TESTED_PYTHONS = ((3, 11),)
SPARE_BYTES = 2e9
"""Of a temporary folder: maps of a large slide are raw floats while they are made."""

EXTRAS = {
    "viewer": (("starlette", "uvicorn"), "`pathology view`, in any browser"),
    "notebook": (("starlette", "anywidget"), "the viewer in a notebook's cell"),
    "zarr": (("zarr",), "heatmaps as OME-Zarr"),
    "dicom": (("highdicom",), "heatmaps as DICOM Parametric Maps"),
    "cluster": (("ray",), "`--engine ray`, workers on many machines"),
    "s3": (("s3fs",), "results in stores of Amazon's kind, s3://"),
    "gcs": (("gcsfs",), "results in stores of Google's kind, gs://"),
    "benchmark": (("sklearn",), "the bags of digits that aggregators are compared on"),
}
"""Each extra's modules, and what they are for."""


@dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Args:
        name: of what.
        text: what was found, and what to do where that is not as it should be.
        is_wrong: whether nothing works until it is mended.
    """

    name: str
    text: str
    is_wrong: bool = False


def look() -> Iterator[Line]:
    """Look at everything, what all else needs first."""
    yield python()
    yield from requirements()
    yield _safely("OpenSlide library", openslide_library)
    yield _safely("GPU", gpu)
    yield Line("C kernels", kernels())
    yield temporary_folder()
    yield from extras()


def _safely(name: str, look: Callable[[], str]) -> Line:
    """What ``look`` says, or that what it looks at cannot be loaded."""
    try:
        return Line(name, look())
    except (ImportError, OSError) as error:
        return Line(name, f"cannot be loaded: {_one_line(error)}", is_wrong=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def python() -> Line:
    """The interpreter."""
    text = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info[:2] not in TESTED_PYTHONS:
        tested = ", ".join(f"{major}.{minor}" for major, minor in TESTED_PYTHONS)
        text += f"; the tests run with {tested}"
    return Line("Python", text)


def requirements() -> Iterator[Line]:
    """Versions: each that is told, each that is wrong, and a line for those newer than tested."""
    tested, newer, fine = tested_versions(), [], 0
    try:
        wanted = dict(_wanted())
    except importlib.metadata.PackageNotFoundError:
        yield Line("packages", f"not checked: {DISTRIBUTION} itself is not installed by pip")
        wanted = dict.fromkeys(NAMED, "0")
    for name, least in sorted(wanted.items(), key=lambda each: _place(each[0])):
        pip = f'pip install "{name}>={least}"' if least != "0" else f"pip install {name}"
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Line(name, f"missing; {pip}", is_wrong=True)
            continue
        if _numbers(found) < _numbers(least):
            yield Line(name, f"{found} is too old; {pip}", is_wrong=True)
            continue
        if name in NAMED:
            yield Line(name, found)
        else:
            fine += 1
        if name in tested and _numbers(found)[:2] > _numbers(tested[name])[:2]:
            newer.append(f"{name} {found} ({tested[name]})")
    yield Line("other packages", f"{fine}, as they should be")
    if newer:
        yield Line(
            "newer than tested",
            f"{', '.join(newer)}; if something fails: pip install --constraint"
            f" {shipped('constraints.txt')} {DISTRIBUTION}",
        )


def _place(name: str) -> int:
    return NAMED.index(name) if name in NAMED else len(NAMED)


def _wanted() -> Iterator[tuple[str, str]]:
    """Name and lowest version of each requirement that is of no extra."""
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        requirement, _, marker = line.partition(";")
        found = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*([\d.]+))?", requirement.strip())
        if found and "extra" not in marker:
            yield _normal(found[1]), found[2] or "0"


def tested_versions() -> dict[str, str]:
    """The newest versions that are known to work together."""
    with suppress(OSError):
        lines = shipped("constraints.txt").read_text(encoding="utf-8").splitlines()
        pins = (line.partition("==") for line in lines if not line.startswith("#"))
        return {_normal(name): version for name, equals, version in pins if equals}
    return {}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at their end."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(number) for number in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def openslide_library() -> str:
    """The C library's version.

    Raises:
        ImportError: there is none, or no package for it.
    """
    try:
        openslide = importlib.import_module("openslide")
    except (ImportError, OSError) as error:
        raise ImportError(f'{_one_line(error)}; pip install "openslide-bin>=4.0.1"') from error
    return str(openslide.__library_version__)


def gpu() -> str:
    """The devices that PyTorch sees; where it sees none, whether one could be had.

    Raises:
        ImportError: there is no PyTorch.
    """
    torch: Any = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of drivers too old, which is said below
        is_available = torch.cuda.is_available()
    built, driver = torch.version.cuda, driver_cuda()
    if is_available:
        count = torch.cuda.device_count()
        names = Counter(torch.cuda.get_device_name(device) for device in range(count))
        devices = ", ".join(name if n == 1 else f"{n} x {name}" for name, n in names.items())
        kind = f"CUDA {built}, driver for {_dotted(driver)}" if built else "PyTorch's ROCm"
        return f"{devices} ({kind})"
    if driver is None:
        return "none; everything runs on CPU"
    if built is None:
        return (
            f"not used: there is a driver (CUDA {_dotted(driver)}), but this PyTorch is for CPUs"
            " alone; install one for CUDA, see pytorch.org"
        )
    if driver[0] < int(built.partition(".")[0]):
        return (
            f"not used: the driver is for CUDA {_dotted(driver)}, this PyTorch for {built}; renew"
            f" the driver, or install a PyTorch for CUDA {driver[0]}, see pytorch.org"
        )
    return (
        f"not used: there is a driver (CUDA {_dotted(driver)}), but PyTorch sees no device; see"
        " `nvidia-smi` and CUDA_VISIBLE_DEVICES"
    )


def _dotted(driver: tuple[int, int] | None) -> str:
    return "?" if driver is None else f"{driver[0]}.{driver[1]}"


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that this machine's NVIDIA driver can do; ``None`` without a driver."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = ctypes.c_int()
    try:
        if ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value // 1000, version.value % 1000 // 10


def kernels() -> str:
    """Whether layers are computed by compiled code; needs no PyTorch."""
    from bcos_vit.kernels import status

    text = status()
    if "no C compiler" in text:
        text += "; a compiler: apt install gcc, dnf install gcc, or xcode-select --install"
    return text


def temporary_folder() -> Line:
    """Where maps lie while they are made."""
    name = "temporary folder"
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "probe").write_bytes(b"written")
            free = shutil.disk_usage(folder).free
    except OSError as error:
        return Line(
            name,
            f"cannot be written: {_one_line(error)}; set TMPDIR to one that can",
            is_wrong=True,
        )
    text = f"{tempfile.gettempdir()}, {free / 1e9:.1f} GB free"
    if free < SPARE_BYTES:
        text += "; large slides take some GB while they are explained: set TMPDIR to where there is"
    return Line(name, text)


def extras() -> Iterator[Line]:
    """Each extra: there, or what it is for and how to get it."""
    for extra, (modules, purpose) in EXTRAS.items():
        is_there = all(importlib.util.find_spec(module) is not None for module in modules)
        text = "installed" if is_there else f'for {purpose}: pip install "{DISTRIBUTION}[{extra}]"'
        yield Line(f"extra {extra}", text)
