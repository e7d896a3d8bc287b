"""Which runs have the weights that explanations were made with, told without loading any."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pathology.errors import ManifestError, StampMismatchError

RAW = ":raw"
"""Behind a checkpoint: the weights that were trained, not their average. One file has both."""


def digest_of(run: str | Path) -> str:
    """Hash of a run's weights, as explanations name them (SHA-256 of the file, 16 hex digits).

    Args:
        run: folder that ``pathology train`` wrote, or a checkpoint of one; ``:raw`` behind it is
            of no account.

    Raises:
        ManifestError: there is no such run.
    """
    path = Path(str(run).removesuffix(RAW))
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        path = best if best.is_file() else best.with_suffix(".safetensors")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise ManifestError(
            f"{path}: no checkpoint ({error.strerror}); give --run a folder that `pathology train`"
            " wrote"
        ) from error


def wanted(record: Mapping[str, Any]) -> list[str]:
    """The weights that made an explanation, its members' among them; without ``:raw``."""
    settings = record.get("settings") or {}
    members = (settings.get("layers") or {}).get("members") or []
    found = [str(each.get("checkpoint")) for each in (settings, *members)]
    return [digest.removesuffix(RAW) for digest in found]


def check_runs(runs: Mapping[str, str], folders: Iterable[Path]) -> None:
    """Refuse a run that made none of the explanations.

    Args:
        runs: by the hash of their weights.
        folders: of explanations.

    Raises:
        StampMismatchError: naming the run, its weights, and those that were used.
    """
    missing, seen = dict(runs), set()
    for folder in folders:
        if not missing:
            return
        for digest in _wanted_in(folder):
            seen.add(digest)
            missing.pop(digest, None)
    for digest, run in missing.items():
        some = ", ".join(sorted(seen)[:4]) + (", ..." if len(seen) > 4 else "")
        raise StampMismatchError(
            f"--run {run}: has the weights {digest}, and no explanation in --results was made with"
            f" them, but with {some or 'none that is named'}; give the run that was explained"
        )


def _wanted_in(folder: Path) -> Sequence[str]:
    """Of an explanation's folder; of a damaged one nothing."""
    try:
        return wanted(json.loads((folder / "explanation.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return []
