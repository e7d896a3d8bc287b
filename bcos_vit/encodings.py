"""How pixels become the channels of a network's input: the names, and what goes with what.

========== ======== =======================================================================
encoding   channels
========== ======== =======================================================================
complement 6        ``[r, g, b, 1-r, 1-g, 1-b]`` in [0, 1] (Boehle et al., CVPR 2022)
rgb        3        red, green, blue, normalised by the mean and deviation of the data config
stain      6        ``[h, e, r, e+r, h+r, h+e]``: haematoxylin, eosin, residual, and of each what
                    of the optical density it is not; see :mod:`bcos_vit.stain_space`
========== ======== =======================================================================

A model knows its encoding by name (``model.encoding``); :func:`bcos_vit.transforms.encode` applies
it.
"""

CHANNELS = {"complement": 6, "rgb": 3, "stain": 6}
"""Channels that each encoding makes."""


def check_encoding(encoding: str | None, in_chans: int) -> str | None:
    """``encoding`` itself, or the one that goes with ``in_chans`` channels; None where none does.

    Raises:
        ValueError: an unknown encoding, or one of another number of channels.
    """
    if encoding is None:
        return {3: "rgb", 6: "complement"}.get(in_chans)
    if channels(encoding) != in_chans:
        raise ValueError(
            f"encoding {encoding!r} makes {CHANNELS[encoding]} channels, in_chans is {in_chans}"
        )
    return encoding


def channels(encoding: str) -> int:
    """How many channels ``encoding`` makes.

    Raises:
        ValueError: an unknown encoding.
    """
    if encoding not in CHANNELS:
        raise ValueError(f"encoding must be one of {sorted(CHANNELS)}, got {encoding!r}")
    return CHANNELS[encoding]
