"""``pathology doctor``: versions, devices, and a made-up slide through the whole chain."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pathology.cli.installation import look

MODELS = ("bcos_vit_tiny_patch16_224", "bcos_resnet18")


def doctor() -> int:
    """Check this installation; every line says what works, or what to do.

    What is optional and not there is named with the command that brings it. Then a made-up slide is
    explained by two untrained models, in memory.
    """
    import bcos_vit

    print(f"bcos-pathology {bcos_vit.__version__}")
    wrong = []
    for line in look():
        print(f"  {line.name:<18} {line.text}", flush=True)
        if line.is_wrong:
            wrong.append(line.name)
    if wrong:
        print(f"to be mended first: {', '.join(wrong)}")
        return 2
    for name in MODELS:
        print(f"  {name}: {_chain(name)}", flush=True)
    print("all well")
    return 0


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
    if not arguments:
        return doctor()
    from pathology.cli.run_function import run_function  # which needs packages that may be missing

    return run_function(doctor, arguments)
