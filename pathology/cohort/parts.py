"""Parts of a cohort, for as many jobs that know nothing of each other."""

import re


def parse_part(text: str | None) -> tuple[int, int]:
    """``3/16``: which part, from 1, of how many.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part, of = (int(number) for number in found.groups()) if found else (0, 0)
    if not 1 <= part <= of:
        raise ValueError(f"--part must be like 3/16, from 1/16 to 16/16; got {text!r}")
    return part, of
