"""Compiling the C kernels for this machine, once, and loading them.

A library is kept by what it depends on: source, flags, compiler and processor. A home directory
shared by machines of several kinds holds one for each.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

SWITCH = "BCOS_VIT_KERNELS"
# No flag that lets the compiler change what is computed; only the order of nothing but errno and
# traps is given up. Lanes of sums are written out in the source.
_FLAGS = (
    "-std=c11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
    "-shared", "-fPIC",
)  # fmt: skip
_REAL = ("float", "double")
_TIMEOUT_S = 120


@functools.cache
def library(real: str) -> ctypes.CDLL | None:
    """The kernels for ``"float"`` or ``"double"``; None where they cannot be had.

    The answer holds for the life of the process; :func:`status` says why there are none.
    """
    try:
        return _load(real)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _failures[real] = " ".join(str(error).split())
        return None


_failures: dict[str, str] = {}


def status() -> str:
    """In words: whether kernels are in use, or why not."""
    if library(_REAL[0]) is not None and library(_REAL[1]) is not None:
        return "compiled for this processor"
    reason = next(iter(_failures.values()), "unknown")
    return f"none ({reason}); PyTorch's own operations do the same, more slowly"


def _load(real: str) -> ctypes.CDLL:
    """Find or make the library.

    Raises:
        OSError: switched off, no compiler, or nowhere to keep the library.
        RuntimeError: the user has no home.
        RuntimeError: there is no home directory.
        subprocess.SubprocessError: the compiler failed.
    """
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "false"):
        raise OSError(f"switched off by {SWITCH}")
    if os.name == "nt":
        raise OSError("not tried on Windows")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler called cc, gcc or clang")
    source = files("bcos_vit.kernels").joinpath("kernels.c").read_text(encoding="utf-8")
    version = subprocess.run(
        [compiler, "--version"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
        check=True,
    ).stdout
    key = repr((source, _FLAGS, real, version, platform.machine(), _processor()))
    name = f"kernels-{real}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = _cache() / name
    if not path.exists():
        _compile(compiler, source, real, path)
    return ctypes.CDLL(str(path))


def _compile(compiler: str, source: str, real: str, path: Path) -> None:
    """Make ``path``, or leave nothing; several processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        code, made = Path(scratch) / "kernels.c", Path(scratch) / path.name
        code.write_text(source, encoding="utf-8")
        command = [compiler, *_FLAGS, f"-DREAL={real}", "-o", str(made), str(code), "-lm"]
        # Threads where the compiler knows OpenMP; clang on macOS does not.
        for threads in (["-fopenmp"], []):
            result = subprocess.run(
                [*command, *threads],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT_S,
            )
            if result.returncode == 0:
                made.replace(path)
                return
        raise OSError(f"{compiler} failed: {result.stderr.strip()[:200]}")


def _processor() -> str:
    """What ``-march=native`` depends on."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    lines = info.read_text().splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _cache() -> Path:
    """The user's own folder for libraries, made where there is none.

    Raises:
        OSError: it cannot be made, or somebody else could write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "bcos_vit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    # What is loaded from here runs as this user.
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise OSError(f"{folder} belongs to, or can be written by, others")
    return folder
