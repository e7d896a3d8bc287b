"""Cards: nothing that tables name is without one, and their numbers are those of the files."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from bcos_vit.models import list_models
from bcos_vit.models.weights import PUBLISHED, TERMS
from pathology.aggregators.registry import AGGREGATORS
from pathology.data.open_data.sets import PUBLIC, all_sets
from scripts import real_table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODELS = (DOCS / "cards" / "models.md").read_text()
DATA = (DOCS / "cards" / "data.md").read_text()
HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)


def cells(text, first):
    """The cells of each row of a page's tables whose first cell matches."""
    for line in text.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else [""]
        if re.fullmatch(first, row[0]):
            yield row


def card(text, heading):
    """What stands below a heading."""
    return text.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def slug(heading):
    """A heading's name in links."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_family_of_the_tables_of_models_has_a_row():
    page = (DOCS / "models.md").read_text().partition("Written by scripts/model_table.py")[2]
    families = re.findall(r"^### (.+)$", page, re.MULTILINE)
    assert len(families) >= 9
    rows = {row[0] for row in cells(card(MODELS, "## Architectures"), ".+")}
    assert set(families) <= rows


def test_every_network_belongs_to_a_row():
    names = re.findall(r"`([\w*]+)`", " ".join(
        row[1] for row in cells(card(MODELS, "## Architectures"), r"[A-Z].+") if len(row) == 4
    ))  # fmt: skip
    patterns = [re.compile(name.replace("*", r"\w+")) for name in names]
    for model in list_models():
        assert any(pattern.fullmatch(model) for pattern in patterns), model


def test_published_weights_are_told_apart_by_source_and_terms():
    told = card(MODELS, "## Published B-cos v2 networks")
    assert f"{len(PUBLISHED)} files" in told
    assert "Apache-2.0" in told
    assert {weights.license for weights in PUBLISHED} == {"apache-2.0"}
    ours = TERMS.split(";")[0].removeprefix("Trained on ")
    assert ours in told


def test_every_aggregator_has_its_numbers():
    with (DOCS / "digit_bags.csv").open(newline="") as file:
        found = {(r["toy"], r["aggregator"]): r for r in csv.DictReader(file)
                 if r["measure"] == "auroc"}  # fmt: skip
    rows = {row[0].strip("`"): row[1:] for row in cells(card(MODELS, "## Aggregators"), r"`\w+`")}
    assert set(rows) == set(AGGREGATORS)
    for name, told in rows.items():
        for toy, cell in zip(("four_bags", "pos_neg", "adjacent_pairs"), told, strict=True):
            row = found[toy, name]
            wanted = f"{float(row['mean']):.3f}"
            if row["low"] and name != "abmil":
                wanted += (
                    f", {float(row['to_abmil']):+.3f}"
                    f" [{float(row['low']):+.3f}, {float(row['high']):+.3f}]"
                )
            assert cell == wanted, (name, toy)


def test_numbers_on_real_tissue_are_those_of_the_files():
    table = real_table.table(pd.read_csv(real_table.RUNS), pd.read_csv(real_table.DIFFERENCES))
    made = {
        (row[0].split(",")[0], row[1]): [row[2], row[3], row[4], row[6]]
        for row in cells(table, r"(oral|colon) .+")
    }
    told = {
        (row[0], row[1].strip("`")): row[2:]
        for row in cells(card(MODELS, "## Networks on real tissue"), r"(oral|colon) .+")
    }
    assert len(told) == 10
    assert told == made


def test_numbers_of_the_small_study_are_those_of_its_page():
    page = DOCS / "reports" / "small.md"
    if not page.is_file():
        pytest.skip("the study's page is not there")
    found: dict[str, list[str]] = {}
    for data in ("tissue", "pen"):
        block = page.read_text().partition(f"**Networks on {data}**\n\n")[2].partition("\n\n")[0]
        [head, _, *rows] = cells(block, ".+")
        [place] = [i for i, name in enumerate(head) if name.startswith("AUROC")]
        for row in rows:
            found.setdefault(row[0], []).append(row[place])
    told = card(MODELS, "## Networks of the studies")
    assert {row[0].strip("`"): row[1:] for row in cells(told, r"`\w+`")} == found


def test_every_config_of_a_training_has_a_card():
    missing = []
    for path in sorted((ROOT / "configs" / "train").glob("*.yaml")):
        if path.stem.endswith(("_oscc", "_nuclei")):
            model = path.stem.rpartition("_")[0]
            known = f"`{model}`" in card(MODELS, "## Networks on real tissue")
        else:
            known = f"`{path.name}`" in card(MODELS, "## Recipes that were not trained here")
        missing += [] if known else [path.name]
    assert not missing
    for name in re.findall(r"`(\w+\.yaml)`", card(MODELS, "## Recipes that were not trained here")):
        assert (ROOT / "configs" / "train" / name).is_file(), name


def test_every_set_that_is_recognised_has_a_card():
    headings = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"^### (.+)$", DATA, re.M))))
    assert headings == {one.name for one in PUBLIC}
    layouts = DATA.partition("## Layouts that")[2]
    for one in set(all_sets()) - set(PUBLIC):
        assert f"`{one.name}`" in layouts


@pytest.mark.parametrize("one", PUBLIC, ids=lambda one: one.name)
def test_a_set_has_the_licence_and_source_that_the_program_tells(one):
    [heading] = [h for h in HEADING.findall(DATA) if f"`{one.name}`" in h]
    told = card(DATA, f"### {heading}")
    licence = next(cells(told, "licence"))[1]
    name = one.licence.name
    known = ("CC BY-NC-SA 4.0", "CC BY-NC-ND 4.0", "CC BY 4.0", "CC BY 3.0", "CC0")
    stated = next((each for each in known if name.startswith(each)), None)
    assert stated is None or licence.startswith(stated)
    assert (one.licence.commercial is False) == ("no commercial use" in licence)
    for address in re.findall(r"https?://\S+", one.source):
        assert address in told or address in DATA
    assert {"is", "from", "licence", "patients", "known against it", "used in"} == {
        row[0] for row in cells(told, "[a-z ]+")
    }


def test_the_page_of_data_says_which_sets_are_not_for_commercial_use():
    page = " ".join((DOCS / "data.md").read_text().split())
    told = re.search(r"\*\*Licences\.\*\*.+?not for commercial use", page)[0]
    refused = told.rpartition(". ")[2].upper()
    for one in PUBLIC:
        if one.licence.commercial is False:
            assert one.name.upper() in refused


def test_links_between_cards_lead_somewhere():
    places = {slug(heading) for heading in HEADING.findall(DATA)}
    for place in re.findall(r"\(data\.md#([\w-]+)\)", MODELS):
        assert place in places, place


def test_no_card_names_where_it_was_written():
    for text in (MODELS, DATA):
        assert not re.search(r"/work/|/tmp/|/home/", text)
