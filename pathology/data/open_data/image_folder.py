"""Any folder of class folders, with or without folders of splits above them."""

from pathlib import Path

from pathology.data.image_files import IMAGE_SUFFIXES
from pathology.data.open_data.folders import files_below, files_in, names, subfolders
from pathology.data.open_data.open_set import (
    AT_RANDOM,
    Found,
    OpenSet,
    Problem,
    tile_table,
)

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
# Folders named after what their files are, not after what they show.
NO_CLASSES = {
    "images", "image", "imgs", "labels", "label", "masks", "mask", "annotations", "annotation",
    "tiles", "patches", "slides", "data", "raw", "xml", "overlays", "thumbnails",
}  # fmt: skip


def _class_folders(folder: Path) -> list[Path]:
    return [
        p for p in subfolders(folder) if p.name.lower() not in NO_CLASSES and any(files_below(p))
    ]


def _parts(folder: Path) -> dict[str, list[Path]]:
    """Folders by split; ``""`` where there is no such level."""
    parts: dict[str, list[Path]] = {}
    for part in subfolders(folder):
        split = SPLIT_NAMES.get(part.name.lower())
        if split and _class_folders(part):
            parts.setdefault(split, []).append(part)
    return parts or {"": [folder]}


def _recognise(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    parts = _parts(folder)
    classes = {p.name for homes in parts.values() for home in homes for p in _class_folders(home)}
    if len(classes) < 2:
        return ""
    levels = f"{', '.join(parts)} with " if "" not in parts else ""
    return f"{levels}{len(classes)} class folders"


def _read(folder: Path) -> Found:
    rows: list[dict[str, str]] = []
    problems, notes = [], []
    labels_of: dict[str, set[str]] = {}
    parts = _parts(folder)
    for split, homes in parts.items():
        for home in homes:
            loose = [p for p in files_in(home) if p.suffix.lower() in IMAGE_SUFFIXES]
            if loose:
                what = "images outside the class folders, so without a label"
                problems.append(Problem(what, names(loose, folder)))
            for label_folder in subfolders(home):
                files = files_below(label_folder)
                if label_folder.name.lower() in NO_CLASSES or (
                    not split and label_folder.name.lower() in SPLIT_NAMES
                ):
                    notes.append(f"folder {label_folder.name} is not taken for a class")
                    continue
                if not files:
                    what = "class folders without an image"
                    problems.append(Problem(what, names([label_folder], folder), True))
                    continue
                labels_of.setdefault(split, set()).add(label_folder.name)
                extra = {"split": split} if split else {}
                rows += [{"path": str(p), "label": label_folder.name} | extra for p in files]
    classes = tuple(sorted(set().union(*labels_of.values()))) if labels_of else ()
    for split, labels in labels_of.items():
        absent = tuple(sorted(set(classes) - labels))
        if absent:
            problems.append(Problem(f"{split}: classes that other splits have", absent, True))
    notes.append(f"nothing here tells patients: {AT_RANDOM}")
    return Found(tile_table(rows), classes, problems, notes)


IMAGE_FOLDER = OpenSet(
    name="folder",
    title="any folder of class folders, with or without train, val and test above",
    kind="tiles",
    licence=None,
    source="yours",
    size="any",
    split="folders train, val and test, if there are any",
    recognise=_recognise,
    read=_read,
)
