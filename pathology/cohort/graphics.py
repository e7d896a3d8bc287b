"""The graphics cards of this machine, shared out among processes."""

import os

_SEEN = "CUDA_VISIBLE_DEVICES"


def graphics_cards() -> list[str]:
    """Cards that this process may use, by the names that ``CUDA_VISIBLE_DEVICES`` takes."""
    import torch

    # It asks the driver's management library: this process takes no memory of any card.
    count = torch.cuda.device_count()
    named = os.environ.get(_SEEN)
    if named is None:
        return [str(number) for number in range(count)]
    return [name.strip() for name in named.split(",")][:count]


def see_only(card: str) -> None:
    """Have this process, which has not looked for cards yet, find this one alone."""
    os.environ[_SEEN] = card
