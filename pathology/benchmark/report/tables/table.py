"""A table to be printed, and its Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table.

    Args:
        text: the value.
        small: beneath it.
        kind: how it looks: ``best``, ``top``, ``better``, ``worse``, ``warn`` or nothing.
        shade: from -1 to 1, of its background; ``None`` without.
    """

    text: str
    small: str = ""
    kind: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """A table to be printed.

    Args:
        title: above it.
        caption: what it says, and what its intervals draw as a whole.
        columns: heads; the first are of the rows' names.
        rows: names and cells.
        names: how many leading columns are text.
        muted: rows of controls.
    """

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    muted: frozenset[int] = field(default_factory=frozenset)


def markdown(table: Table) -> str:
    """A table for the docs, with its caption beneath."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(one.replace("|", "\\|") for one in texts) + " |"

    align = ["---" if i < table.names else "---:" for i in range(len(table.columns))]
    rows = [line(table.columns), "|" + "|".join(align) + "|"]
    for row in table.rows:
        rows.append(line(f"{one.text} ({one.small})" if one.small else one.text for one in row))
    return "\n".join([*rows, "", table.caption, ""])
