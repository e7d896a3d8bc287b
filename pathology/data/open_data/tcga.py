"""TCGA slides as the GDC's transfer tool leaves them: ``<file uuid>/TCGA-....svs``.

A download manifest (``id, filename, md5, size, state``; tab separated, ``gdc_manifest*.txt``) tells
what should be there; a sample sheet (``gdc_sample_sheet*.tsv``) which project a slide belongs to.
A barcode, TCGA-XX-YYYY-01Z-00-DX1, holds the tissue source site (XX), the patient (to YYYY), the
sample type (01 to 09 tumour, 10 to 19 normal) and the kind of slide: DX is formalin-fixed and
paraffin-embedded, TS, BS and MS are frozen.
"""

import re
from pathlib import Path

import pandas as pd

from pathology.data.open_data.folders import files_below, files_in, names
from pathology.data.open_data.open_set import Found, Licence, OpenSet, Problem, read_table

BARCODE = re.compile(
    r"(TCGA-(?P<site>\w{2})-\w{4})-(?P<sample>\d{2})[A-Z]-\d{2}-(?P<slide>DX|TS|BS|MS)\w*",
    re.IGNORECASE,
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
MANIFEST = ("id", "filename", "md5", "size")
SHEET = ("File ID", "Project ID")


def _slides(folder: Path) -> list[Path]:
    return [
        path for path in files_below(folder, (".svs", ".tif", ".tiff")) if BARCODE.match(path.name)
    ]


def _manifests(folder: Path) -> list[Path]:
    """Download manifests: tables that begin with the right columns."""
    tables = {p for p in files_in(folder) if p.suffix.lower() in (".txt", ".tsv")}
    # Below, only what is called so: every downloaded file may have an annotations.txt.
    tables |= {p for p in files_below(folder, (".txt", ".tsv")) if "manifest" in p.name.lower()}
    found = []
    for path in sorted(tables):
        try:
            with path.open() as file:
                header = file.readline().rstrip("\r\n").split("\t")
        except (OSError, UnicodeDecodeError):
            continue
        if header[:2] == list(MANIFEST[:2]):
            found.append(path)
    return found


def _recognise(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    said = [p.name for p in _manifests(folder)]
    count = len(_slides(folder))
    if count:
        said.append(f"{count:,} slides with TCGA barcodes")
    return " and ".join(said)


def _row(path: Path) -> dict[str, str]:
    match = BARCODE.match(path.name)
    assert match is not None
    sample = int(match["sample"])
    return {
        "slide_id": path.stem,
        "path": str(path),
        "patient_id": match[1].upper(),
        "site": match["site"].upper(),
        "sample": "tumour" if sample < 10 else "normal" if sample < 20 else "control",
        "preservation": "FFPE" if match["slide"].upper() == "DX" else "frozen",
        "file_id": path.parent.name if _UUID.fullmatch(path.parent.name) else "",
    }


def _against(
    manifest: pd.DataFrame, folder: Path, slides: list[Path]
) -> tuple[list[Problem], dict[Path, str]]:
    """What a download manifest lists and is not there; MD5 of what is."""
    # The manifest may lie above or below the folders that were filled by it.
    there = {(path.parent.name, path.name): path for path in slides}
    lost, short, checksums = [], [], {}
    for row in manifest.to_dict("records"):
        path = there.get((row["id"], row["filename"]), folder / row["id"] / row["filename"])
        if not path.is_file():
            partial = path.with_name(path.name + ".partial").exists()
            lost.append(f"{row['id']}/{row['filename']}" + (" (.partial)" if partial else ""))
            continue
        size = path.stat().st_size
        if row["size"].isdecimal() and size != int(row["size"]):
            short.append(f"{row['id']}/{row['filename']} ({size:,} of {int(row['size']):,} bytes)")
        checksums[path] = row["md5"]
    problems = []
    if lost:
        what = f"found {len(manifest) - len(lost):,} of {len(manifest):,} files of the manifest"
        problems.append(Problem(what, tuple(lost), True))
    if short:
        problems.append(Problem("files of another size than the manifest says", tuple(short)))
    return problems, checksums


def _read(folder: Path) -> Found:
    slides = _slides(folder)
    problems: list[Problem] = []
    notes: list[str] = []
    checksums: dict[Path, str] = {}
    manifests = _manifests(folder)
    for manifest in manifests:
        lacks, sums = _against(read_table(manifest, MANIFEST, "\t"), manifest.parent, slides)
        problems += lacks
        checksums |= sums
    if not manifests:
        notes.append("no gdc_manifest*.txt is here, so nobody knows what is missing")
    columns = ["slide_id", "path", "patient_id", "site", "sample", "preservation", "file_id"]
    table = pd.DataFrame([_row(path) for path in slides], columns=columns)
    twice = table["slide_id"].duplicated()
    if twice.any():
        problems.append(
            Problem("slides that are there twice", names(map(Path, table["path"][twice]), folder))
        )
        table = table[~twice].reset_index(drop=True)
    classes: tuple[str, ...] = ()
    sheets = [p for p in files_below(folder, (".tsv",)) if "sample_sheet" in p.name.lower()]
    if sheets:
        sheet = pd.concat([read_table(p, SHEET, "\t") for p in sheets]).drop_duplicates("File ID")
        table["label"] = table["file_id"].map(sheet.set_index("File ID")["Project ID"]).fillna("")
        classes = tuple(sorted(set(table["label"]) - {""}))
        if (table["label"] == "").any():
            lost_rows = tuple(table.loc[table["label"] == "", "slide_id"])
            problems.append(Problem("slides that the sample sheet does not list", lost_rows, True))
    else:
        notes.append(
            "no labels are here: put a gdc_sample_sheet*.tsv beside the slides for projects, or"
            " join a clinical table with --labels"
        )
    kinds = table["preservation"].value_counts()
    if len(kinds) > 1:
        notes.append(
            f"{kinds['FFPE']:,} slides are FFPE and {kinds['frozen']:,} frozen, which look unlike:"
            " choose, --where preservation=FFPE"
        )
    normal = int((table["sample"] != "tumour").sum())
    if normal:
        notes.append(
            f"{normal:,} slides are not of tumour, which the label of a project or a patient does"
            " not say: choose, --where sample=tumour"
        )
    several = int((table.groupby("patient_id").size() > 1).sum())
    if several:
        notes.append(f"{several:,} patients have more than one slide: split by patient")
    notes.append("sites differ in stain and scanner: split by site where a model must generalise")
    return Found(table, classes, problems, notes, checksums=checksums)


TCGA = OpenSet(
    name="tcga",
    title="TCGA: diagnostic and frozen slides, by GDC manifest",
    kind="slides",
    licence=Licence("open access, NIH GDC policies", None, "the TCGA Research Network"),
    source="https://portal.gdc.cancer.gov",
    size="about 1 GB a slide",
    split="none is published",
    recognise=_recognise,
    read=_read,
)
