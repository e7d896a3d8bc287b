"""What settings of methods may be."""


def one_of(setting: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that a setting cannot have.

    Raises:
        ValueError: naming those that it can.
    """
    if value not in known:
        raise ValueError(f"{setting} must be one of {', '.join(known)}, got {value!r}")


def at_least(setting: str, value: float, least: float) -> None:
    """Refuse a number that is too small, or none.

    Raises:
        ValueError: naming the smallest.
    """
    if not value >= least or value == float("inf"):
        raise ValueError(f"{setting} must be finite and at least {least}, got {value}")
