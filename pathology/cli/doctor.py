"""``pathology doctor``: versions, devices, and a made-up slide through the whole chain."""

import importlib.metadata
import importlib.util
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pathology.cli.run_function import run_function

PACKAGES = ("torch", "timm", "monai", "lightning", "openslide-python", "tifffile", "scikit-image")
EXTRAS = {
    "viewer": ("starlette", "uvicorn"),
    "notebook": ("starlette", "anywidget"),
    "zarr": ("zarr",),
    "dicom": ("highdicom",),
    "cluster": ("ray",),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
}


def doctor() -> int:
    """Check this installation; every line says what works."""
    import openslide
    import torch

    import bcos_vit
    from bcos_vit.kernels import status

    print(f"bcos-pathology {bcos_vit.__version__}, Python {platform.python_version()}")
    for name in PACKAGES:
        print(f"  {name:<18} {importlib.metadata.version(name)}")
    print(f"  {'OpenSlide library':<18} {openslide.__library_version__}")
    gpu = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else "none; everything runs on CPU"
    )
    print(f"  {'GPU':<18} {gpu}")
    print(f"  {'C kernels':<18} {status()}")
    for extra, modules in EXTRAS.items():
        print(f"  {f'extra {extra}':<18} {_extra(extra, modules)}")
    for name in ("bcos_vit_tiny_patch16_224", "bcos_resnet18"):
        print(f"  {name}: {_chain(name)}")
    print("all well")
    return 0


def _extra(extra: str, modules: Sequence[str]) -> str:
    if all(map(importlib.util.find_spec, modules)):
        return "installed"
    return f'not installed; pip install "bcos-pathology[{extra}]"'


def _chain(name: str) -> str:
    """Tile and explain a made-up slide in memory with an untrained model; the ledger as a line."""
    import torch

    from bcos_vit.models import create_model
    from pathology.explain.scorers.pooled_logits import PooledLogits
    from pathology.explain.slide import explain_slide
    from pathology.slides.memory import MemorySlide
    from pathology.synthetic import SyntheticSlideSpec, render
    from pathology.tasks.encoding import TileEncoding
    from pathology.tiling import TileSpec, tile_slide

    spec = SyntheticSlideSpec(seed=0, size_px=(512, 512), mpp=1.0)
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).eval()
    with (
        MemorySlide(render(spec, 0, 0, 512, 512).rgb, mpp=1.0) as slide,
        tempfile.TemporaryDirectory() as scratch,
    ):
        grid = tile_slide(slide, TileSpec(size_px=64, mpp=1.0, min_tissue=0.1))
        result = explain_slide(
            slide,
            grid,
            PooledLogits(model, TileEncoding(model), ["normal", "tumour"]),
            scratch=Path(scratch),
        )
        return (
            f"{len(grid)} tiles explained, score {result.ledger.score:+.4f},"
            f" completeness gap {result.ledger.gap:.1e}"
        )


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(doctor, arguments)
