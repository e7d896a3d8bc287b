"""How pixels become the channels of a network's input.

========== ======== =======================================================================
encoding   channels
========== ======== =======================================================================
complement 6        ``[r, g, b, 1-r, 1-g, 1-b]`` in [0, 1] (Boehle et al., CVPR 2022)
rgb        3        red, green, blue, normalised by the mean and deviation of the data config
========== ======== =======================================================================
"""

CHANNELS = {"complement": 6, "rgb": 3}
"""Channels that each encoding makes."""


def check_encoding(encoding: str | None, in_chans: int) -> str | None:
    """``encoding`` itself, or the one that goes with ``in_chans`` channels; None where none does.

    Raises:
        ValueError: an unknown encoding, or one of another number of channels.
    """
    if encoding is None:
        return {3: "rgb", 6: "complement"}.get(in_chans)
    if encoding not in CHANNELS:
        raise ValueError(f"encoding must be one of {sorted(CHANNELS)}, got {encoding!r}")
    if CHANNELS[encoding] != in_chans:
        raise ValueError(
            f"encoding {encoding!r} makes {CHANNELS[encoding]} channels, in_chans is {in_chans}"
        )
    return encoding
