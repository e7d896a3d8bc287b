"""Which methods are ours and which are controls, told from the names that a study gives them."""

OURS = ("bcos", "bcos_contrastive", "contribution")
"""Exact maps of B-cos networks, and exact contributions of tiles to a slide's logit."""
CONTROLS = ("oracle", "random", "constant", "edge", "centre", "stain")
"""Maps that explain nothing, and the truth: checks of metrics, never contestants."""


def role(label: str) -> str:
    """The one of :data:`OURS` or :data:`CONTROLS` that a label is of; empty for any other method.

    A study may name a method twice (``random``, ``random_2``): such a label begins with the name of
    its method, which :func:`check_label` sees to.
    """
    found = [one for one in (*OURS, *CONTROLS) if label == one or label.startswith(f"{one}_")]
    return max(found, key=len, default="")


def is_ours(label: str) -> bool:
    """Whether it is a map of a B-cos network, or a contribution of tiles."""
    return role(label) in OURS


def is_control(label: str) -> bool:
    """Whether it is a check of metrics."""
    return role(label) in CONTROLS


def check_label(label: str, name: str) -> None:
    """See that a label says whether its method is ours, a control or neither.

    Args:
        label: in tables.
        name: of the method.

    Raises:
        ValueError: it says another thing.
    """
    wanted = role(name)
    if role(label) == wanted:
        return
    if wanted:
        raise ValueError(f"as: begins with {name}, what it is a kind of, such as {name}_2")
    raise ValueError(f"as: reads as a kind of {role(label)}, but this is {name}; name it otherwise")
