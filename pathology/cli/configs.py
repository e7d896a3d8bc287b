"""``pathology configs``: the configs that come with the package, as files to use and to change."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pathology.cli.run_function import run_function
from pathology.cli.shipped import shipped


def configs(out: Path = Path("configs"), overwrite: bool = False) -> int:
    """Write the configs that come with this version into a folder.

    The documentation names them `configs/train/...`, `configs/benchmark/...` and so on: after this,
    those names are good where you stand. Each says in its first lines for which data and hardware
    it is, and what to expect. A file of yours is never replaced, unless you say so.

    Args:
        out: the folder, made where missing.
        overwrite: replace files that differ from those of this version.

    Raises:
        OutputError: a file cannot be written, or differs.
    """
    from pathology.errors import OutputError
    from pathology.outputs import complete_file

    source = shipped("configs")
    files = {
        path: out / path.relative_to(source)
        for path in sorted(source.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    same = {there for path, there in files.items() if _is_same(path, there)}
    changed = [there for there in files.values() if there.exists() and there not in same]
    if changed and not overwrite:
        raise OutputError(
            f"{changed[0]}: differs from that of this version"
            f"{f', and so do {len(changed) - 1} more' if len(changed) > 1 else ''};"
            " choose another --out, or add --overwrite"
        )
    for path, there in files.items():
        if there not in same:
            with complete_file(there) as draft:
                shutil.copy(path, draft)
    print(
        f"{out}: {len(files)} files, {len(files) - len(same)} of them new; see {out / 'README.md'}"
    )
    return 0


def _is_same(path: Path, there: Path) -> bool:
    return there.is_file() and there.read_bytes() == path.read_bytes()


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    return run_function(configs, arguments)
