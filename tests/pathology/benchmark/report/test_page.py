"""The page: whole in itself, escaped, nothing asked for, every section that there are rows for."""

import base64
import hashlib
import re

import pandas as pd
import pytest
from PIL import Image

from pathology.benchmark.report import write_figures, write_page
from pathology.benchmark.report.page import render_page
from pathology.benchmark.report.results import read_studies
from tests.pathology.benchmark.report.made import pictures, planted, results, slides

FEW = {
    "data": ("tissue",), "examples": 8, "patients": 8, "metrics": ("epg", "sds"),
    "methods": ("bcos", "rise", "gradcam", "random"),
}  # fmt: skip
ONE = {**FEW, "seeds": (0,), "methods": ("rise",), "backbones": ("resnet18",)}
EVIL = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def html():
    rows = results(**FEW)
    rows.loc[rows["group"] == "refused", "note"] = EVIL
    two = pd.concat([rows, results(**ONE, study="second")])
    return render_page(two, pictures(count=2), ["pathology benchmark --config a.yaml"], "A title")


def test_nothing_is_asked_for(html):
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "http" not in re.sub(r"data:image/[^\"]*", "", html).replace("http-equiv", "")
    for tag in ("style", "script"):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in html
    assert " style=" not in html  # the policy would not let it


def test_reasons_are_escaped(html):
    assert "<script>alert" not in html
    assert "alert(1)" in html


def test_every_study_has_its_section_and_links_lead_somewhere(html):
    assert html.count('<section id="study') == 2
    targets = set(re.findall(r' id="([^"]+)"', html))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= targets
    for part in ("methods", "pictures", "networks", "all", "ranks", "cost", "tests", "missing"):
        assert f"study1-{part}" in targets
    # Without ours there is nothing to test against, and without pictures no strips.
    assert "study2-tests" not in targets
    assert "study2-pictures" not in targets


def test_examples_are_counted_where_no_metric_is_a_headline():
    rows = planted(results(**FEW), "tissue", {})
    rows = rows[(rows["metric"] != "epg") & (rows["metric"] != "sds")]
    assert "tissue: 8 examples explained" in render_page(rows, [], [], "A title")


def test_commands_and_versions_are_there(html):
    assert "pathology benchmark --config a.yaml" in html
    assert "<dt>torch</dt>" in html


def test_a_table_of_backbones_alone_is_a_page():
    rows = results(**ONE).query("method == ''")
    html = render_page(rows, [], [])
    assert "Networks on tissue" in html
    assert "study1-methods" not in html


def test_slides_have_a_section_of_their_own():
    html = render_page(slides(), [], [])
    assert "Contributions of tiles lose no test on the same network and win" in html
    assert "study1-slides" in html
    assert "gated on slides" in html
    assert "no rule" in html
    assert "\u2605 0.8" in html


def test_it_is_written_whole(tmp_path):
    rows = results(**{**ONE, "methods": ()})
    found = write_page(rows, [], tmp_path / "new" / "report.html", [])
    assert found.read_text().startswith("<!doctype html>")
    assert [one.name for one in (tmp_path / "new").iterdir()] == ["report.html"]


def test_figures_for_the_docs(tmp_path):
    (study,) = read_studies(results(**FEW))
    found = write_figures(study, pictures(count=2)[:6], tmp_path, dpi=50)
    names = {one.name for one in found}
    assert {"made_dots_tissue.png", "made_ranks_bcos.png", "made_cost.png"} < names
    assert any(name.startswith("made_maps_tissue_") for name in names)
    for one in found:
        with Image.open(one) as image:
            assert image.width > 100
            assert one.stat().st_size < 150_000
