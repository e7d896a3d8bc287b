"""Reads through cuCIM, in a process without torch: ``python cucim_slide.py OUT FILE ...``."""

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pathology.geometry import Box
from pathology.slides import open_slide

BOXES = [
    (Box(0, 0, 768, 512), 0.25),
    (Box(100.5, 64.25, 224, 224), 0.25),
    (Box(13.7, 21.1, 443.04, 443.04), 0.5),
    (Box(3, 5, 500, 400), 1.7),
    (Box(-40, -30, 100, 90), 0.25),
    (Box(700.3, 480.9, 100, 90), 0.4),
]


def in_child(slide, box, mpp):
    """The same read in a forked child."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(sending, slide.read(box, mpp).tobytes())
        finally:
            os._exit(0)
    os.close(sending)
    with open(receiving, "rb") as answer:  # noqa: PTH123
        data = answer.read()
    assert os.waitpid(child, 0)[1] == 0
    return np.frombuffer(data, np.uint8)


def main(out, *files):
    assert "torch" not in sys.modules
    reads = {}
    for file in files:
        path = Path(file)
        with open_slide(path) as slide:
            reads[f"{path.stem}/auto"] = np.array(type(slide).__name__)
        with open_slide(path, backend="cucim") as slide:
            for i, (box, mpp) in enumerate(BOXES):
                reads[f"{path.stem}/{i}"] = slide.read(box, mpp)
            wanted = slide.read(*BOXES[3])
            with pickle.loads(pickle.dumps(slide)) as copy:
                assert (copy.read(*BOXES[3]) == wanted).all()
            assert (in_child(slide, *BOXES[3]) == wanted.reshape(-1)).all()
            with ThreadPoolExecutor(4) as pool:
                for read in pool.map(lambda _: slide.read(*BOXES[3]), range(20)):
                    assert (read == wanted).all()
    np.savez(out, **reads)


if __name__ == "__main__":
    main(*sys.argv[1:])
