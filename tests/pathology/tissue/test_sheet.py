"""The QC sheet of a cohort."""

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pathology.errors import OutputError
from pathology.tissue import ARTEFACTS, write_sheet
from pathology.tissue.sheet import flags


def row(slide_id: str = "case", **change: object) -> dict[str, object]:
    summary: dict[str, object] = {
        "slide_id": slide_id,
        "size_px": [1000, 2000],
        "mpp": [0.25, 0.25],
        "mpp_source": "aperio",
        "finder": "colour",
        "found_mm2": 100.0,
        "tissue_mm2": 90.0,
        "artefacts": {"pen": 0.0, "fold": 0.01, "blur": 0.09, "edge": 0.0, "black": 0.0},
        "picture": f"{slide_id}.png",
        "tiles": 12,
    }
    return summary | change


class Page(HTMLParser):
    """Cells by row, and every address the page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.values: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.values.append(known.get("data-value"))
        self.addresses += [known[name] or "" for name in ("src", "href") if name in known]
        if tag == "img":
            assert known["loading"] == "lazy"

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_every_slide_has_its_numbers(tmp_path: Path) -> None:
    rows = [row("a"), row("b", tissue_mm2=0.0, found_mm2=0.0, tiles=None, picture=None)]
    path = write_sheet(rows, tmp_path / "sheet.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.rows) == 3
    assert {len(cells) for cells in page.rows} == {9 + len(ARTEFACTS)}
    numbers = ["90.00", "100.00", "0.0", "1.0", "9.0", "0.0", "0.0", "12", "0.25"]
    assert page.rows[1][1:] == ["a", "", *numbers, "aperio", "colour"]
    assert page.rows[2][2] == "no tissue"
    assert page.rows[2][10] == "\N{EN DASH}"
    assert page.addresses == ["a.png", "a.png"]


def test_the_words_above_are_sentences(tmp_path: Path) -> None:
    text = write_sheet([row("a")], tmp_path / "sheet.html").read_text(encoding="utf-8")
    said = " ".join(re.search("<p>(.*?)</p>", text, re.DOTALL).group(1).split())  # type: ignore[union-attr]
    assert said.startswith("1 slide, 0 of them flagged, 90.0 mm² of tissue, 12 tiles. Shares")
    assert "above pen 5 %, fold 5 %, blur 10 %, edge 5 %, black 5 %. Click" in said


def test_names_are_escaped_in_text_and_in_addresses(tmp_path: Path) -> None:
    name = '<script>alert("1")</script> #1 50%'
    text = write_sheet([row(name)], tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    page = Page(text)
    assert page.rows[1][1] == name
    assert page.addresses[0].startswith("%3Cscript%3E")
    assert page.addresses[0].endswith("%20%231%2050%25.png")


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    text = write_sheet([row()], tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    policy = html.unescape(re.search(r'Policy" content="([^"]*)"', text).group(1))  # type: ignore[union-attr]
    for tag in ("style", "script"):
        inside = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL).group(1)  # type: ignore[union-attr]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_flags() -> None:
    assert flags(row()) == []
    shares = {"pen": 0.2, "blur": None, "fold": 0.0}
    assert flags(row(artefacts=shares)) == ["pen 20 %", "blur not judged"]
    assert flags(row(tissue_mm2=0.0)) == ["nothing left without artefacts"]
    assert flags(row(tiles=0)) == ["no tiles"]
    assert flags(row(), {"blur": 0.05}) == ["blur 9 %"]
    assert flags({"slide_id": "x", "problem": "cannot be read"}) == ["cannot be read"]


def test_a_slide_that_failed_is_on_the_sheet(tmp_path: Path) -> None:
    rows = [{"slide_id": "broken", "problem": "is an empty file"}]
    page = Page(write_sheet(rows, tmp_path / "sheet.html").read_text(encoding="utf-8"))
    assert page.rows[1][1:3] == ["broken", "is an empty file"]


def test_thousands_of_slides(tmp_path: Path) -> None:
    path = write_sheet((row(f"s{i}") for i in range(3000)), tmp_path / "sheet.html")
    assert path.stat().st_size < 6e6
    assert path.read_text(encoding="utf-8").count("<tr>") == 3001


def test_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slide_id"):
        write_sheet([{"problem": "x"}], tmp_path / "sheet.html")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_sheet([row()], tmp_path / "file" / "sheet.html")
