"""The page's table of speed is that of the stored file, and hides no target that is missed."""

import csv

import pytest

from pathology.benchmark.measures import MEASURES
from pathology.benchmark.table import FIELDS, read_rows
from scripts import speed_table


@pytest.fixture
def run(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["speed_table", *arguments])
        speed_table.main()

    return run


@pytest.fixture
def row():
    """Builder of a row of the table."""

    def row(model, measure, ratio, **other):
        empty = dict.fromkeys(FIELDS, "")
        given = {"model": model, "measure": measure, "ratio": ratio, "mode": "eager"}
        where = {"layout": "contiguous", "device": "cpu", "threads": "1", "size_px": "224"}
        return empty | given | where | {"batch": "8", "machine": "Abacus", "torch": "2"} | other

    return row


def test_the_page_is_current(run):
    run("--check")


def test_a_page_that_is_not_current_is_refused_and_mended(run, monkeypatch, tmp_path, capsys):
    page = tmp_path / "speed.md"
    page.write_text(f"Before.\n{speed_table.BEGIN}\n{speed_table.END}\nAfter.\n")
    monkeypatch.setattr(speed_table, "PAGE", page)
    with pytest.raises(SystemExit, match="2"):
        run("--check")
    assert "run python scripts/speed_table.py" in capsys.readouterr().err
    run()
    run("--check")
    text = page.read_text()
    assert (text.startswith("Before.\n"), text.endswith("\nAfter.\n")) == (True, True)

    page.write_text("No table here.")
    with pytest.raises(SystemExit, match="2"):
        run()
    assert f"has no lines '{speed_table.BEGIN}'" in capsys.readouterr().err


def test_what_misses_its_target_is_bold(row):
    table = speed_table.table(
        [
            row("bcos_resnet18", "explain_class", "2.400"),
            row("bcos_vit_tiny_patch16_224", "explain_class", "2.101"),
            row("bcos_resnet18", "explain_classes", "11.401", classes="8"),
            row("bcos_resnet18", "training_memory", "9.000"),
        ]
    )
    assert table.splitlines()[:5] == [
        "| ratio | must reach | resnet18 | vit tiny |",
        "| --- | --- | --- | --- |",
        "| explain one class to pixels, eager, contiguous | 2.4 or 2.1 | 2.400 | **2.101** |",
        "| explain 8 classes to pixels, eager, contiguous | 11.4 | **11.401** | - |",
        "| peak memory of a training step, eager, contiguous | - | 9.000 | - |",
    ]
    assert "Abacus, 1 thread, torch 2, 8 images of 224 px at a time" in table
    assert "1 of 3 targets are met" in table


def test_every_measure_has_a_name_of_its_own():
    titles = [measure.title for measure in MEASURES.values()]
    assert len(set(titles)) == len(titles)


def test_all_stored_rows_of_its_models_are_in_it():
    with speed_table.FIGURES.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in speed_table.MODELS]
    assert rows
    assert len(read_rows(speed_table.FIGURES)) >= len(rows)
    table = speed_table.table(rows)
    assert all(row["ratio"] in table for row in rows)
