"""What is installed where work is done: other versions could write other numbers."""

import hashlib
import socket
import sys
import uuid
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import bcos_vit

DECIDING = (
    "torch", "timm", "numpy", "scipy", "scikit-image", "pillow", "openslide-python",
    "openslide-bin", "tifffile", "imagecodecs", "simplejpeg",
)  # fmt: skip
"""Packages that pixels and features go through."""
_PLACE = "place"


@cache
def installed() -> dict[str, str]:
    """Versions by package, of this process; of this package with a digest of its source, too.

    Builds of one version for other hardware count as the same: what torch+cpu plans, torch+cu130
    may do.
    """
    found = {
        _PLACE: f"{socket.gethostname()} {uuid.getnode():x} {sys.prefix} {_root('pathology')}",
        "bcos-pathology": f"{bcos_vit.__version__} (source {_source()})",
    }
    for name in DECIDING:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = "none"
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What differs, in words; empty where nothing does, and where both are one installation."""
    if here[_PLACE] == there.get(_PLACE):
        return ""  # that may be edited meanwhile, as it may be beside workers of this machine
    return ", ".join(
        f"{name} {there.get(name, 'none')} rather than {here[name]}"
        for name in here
        if name != _PLACE and there.get(name, "none") != here[name]
    )


def _root(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _source() -> str:
    """Of all modules: between releases the version stays as it is."""
    digest = hashlib.sha256()
    for package in ("bcos_vit", "pathology"):
        root = _root(package)
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:8]
