"""Reads through cuCIM, in a process without torch: ``python cucim_slide.py FOLDER FILE ...``."""

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pathology.errors import SlideOpenError
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


def main(folder, *files):
    assert "torch" not in sys.modules
    reads = {}
    for path in map(Path, files):
        with open_slide(path) as slide:
            reads[f"{path.stem}/auto"] = np.array(type(slide).__name__)
        try:
            slide = open_slide(path, backend="cucim")
        except SlideOpenError as error:
            reads[f"{path.stem}/refused"] = np.array(str(error))
            continue
        with slide:
            for i, (box, mpp) in enumerate(BOXES):
                reads[f"{path.stem}/{i}"] = slide.read(box, mpp)
            wanted = slide.read(*BOXES[3])
            pickled = pickle.dumps(slide)
            Path(folder, f"{path.stem}.pickle").write_bytes(pickled)
            with pickle.loads(pickled) as copy:
                assert (copy.read(*BOXES[3]) == wanted).all()
            assert (in_child(slide, *BOXES[3]) == wanted.reshape(-1)).all()
            with ThreadPoolExecutor(4) as pool:
                for read in pool.map(slide.read, *zip(*[BOXES[3]] * 20, strict=True)):
                    assert (read == wanted).all()
    np.savez(Path(folder, "reads.npz"), **reads)


if __name__ == "__main__":
    main(*sys.argv[1:])
