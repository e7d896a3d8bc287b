"""Readings: added to a CSV file one by one, gone on with, never changed."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from pathology.errors import OutputError, PathologyError
from pathology.viewer.library.readings import COLUMNS, Readings

HEADER = ",".join(COLUMNS) + "\n"


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_committed_and_gone_on_with(tmp_path):
    path = tmp_path / "new" / "readings.csv"
    readings = Readings.open(path)
    assert path.read_text() == HEADER
    assert readings.of("s1") is None
    readings.commit("s1", " tumour ", 80, 'a "note",\nof two lines; ü')
    readings.commit("s2", "normal")
    again = Readings.open(path)
    assert len(again) == 2
    assert again.of("s1") == readings.of("s1")
    assert again.of("s1").call == "tumour"
    assert again.of("s1").note == 'a "note",\nof two lines; ü'
    assert again.of("s2").confidence is None
    first, second = rows_of(path)
    assert (first["slide_id"], first["call"], first["confidence"]) == ("s1", "tumour", "80")
    assert second["confidence"] == second["note"] == ""
    assert first["time"].endswith("+00:00")


def test_a_reading_stays(tmp_path):
    path = tmp_path / "readings.csv"
    readings, other = Readings.open(path), Readings.open(path)
    readings.commit("s1", "normal", 60)
    before = path.read_text()
    with pytest.raises(ValueError, match="slide s1 was read at"):
        readings.commit("s1", "tumour", 90)
    assert path.read_text() == before
    assert other.of("s1") is None  # of another viewer, which does not know yet
    with pytest.raises(ValueError, match="slide s1 was read at"):
        other.commit("s1", "tumour", 90)
    assert path.read_text() == before
    assert other.of("s1") == readings.of("s1")


def test_where_a_file_has_two_the_first_counts(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text(HEADER + "t,s1,normal,,\nt,s1,tumour,,\n")
    assert Readings.open(path).of("s1").call == "normal"


def test_line_ends_of_any_kind(tmp_path):
    path = tmp_path / "readings.csv"
    Readings.open(path).commit("s1", "tumour\r", 80, "one\rtwo\r\nthree\n\x85\u2028four")
    assert Readings.open(path).of("s1").note == "one\ntwo\nthree\n\x85\u2028four"
    # As a spreadsheet saves it.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    again = Readings.open(path)
    again.commit("s2", "normal")
    assert (again.of("s1").call, len(Readings.open(path))) == ("tumour", 2)


def test_a_file_that_went_away_or_was_broken_meanwhile(tmp_path):
    path = tmp_path / "readings.csv"
    readings = Readings.open(path)
    path.rename(tmp_path / "elsewhere.csv")
    with pytest.raises(OutputError, match="is gone"):
        readings.commit("s1", "tumour")
    assert not path.exists()
    path.write_text(HEADER + "t,s0,normal,50,cut")
    with pytest.raises(PathologyError, match="cut off"):
        readings.commit("s1", "tumour")
    assert readings.of("s1") is None
    (tmp_path / "elsewhere.csv").replace(path)
    readings.commit("s1", "tumour")
    assert Readings.open(path).of("s1").call == "tumour"


def test_many_at_once_lose_nothing(tmp_path):
    path = tmp_path / "readings.csv"
    two = Readings.open(path), Readings.open(path)  # two viewers
    note = "x" * 3000
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: two[i % 2].commit(f"s{i}", "call", i, note), range(80)))
    found = Readings.open(path)
    assert len(found) == 80
    assert all(found.of(f"s{i}").confidence == i for i in range(80))
    assert {row["note"] for row in rows_of(path)} == {note}


@pytest.mark.parametrize(
    ("call", "confidence", "note"),
    [(" ", None, ""), ("x" * 201, None, ""), ("x", 101, ""), ("x", -1, ""),
     ("x", float("nan"), ""), ("x", 5, "x" * 4001)],
)  # fmt: skip
def test_what_is_no_reading_is_not_written(tmp_path, call, confidence, note):
    readings = Readings.open(tmp_path / "readings.csv")
    with pytest.raises(ValueError, match=r"call|confidence|note"):
        readings.commit("s1", call, confidence, note)
    assert readings.of("s1") is None
    assert (tmp_path / "readings.csv").read_text() == HEADER


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide_id,path\n", "wanted the columns time, slide_id"),
        (HEADER + "t,s1,call\n", "row 2 is no reading: 3 cells"),
        (HEADER + "t,s1,call,high,\n", "row 2 is no reading"),
        (HEADER + "t,s1,call,nan,\n", "row 2 is no reading"),
        (HEADER + "t,s1,,50,\n", "row 2 is no reading: a reading needs a call"),
        (HEADER + "t,s1,call,50,cut of", "last row is cut off"),
        (HEADER + 't,s1,call,50,"cut of', "row 2 is no reading"),
    ],
)
def test_other_and_broken_files_are_refused(tmp_path, text, said):
    path = tmp_path / "readings.csv"
    path.write_text(text)
    with pytest.raises(PathologyError, match=said) as error:
        Readings.open(path)
    assert str(path) in str(error.value)
    assert path.read_text() == text


def test_no_text_is_refused(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PathologyError, match="no text"):
        Readings.open(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        Readings.open(tmp_path)


def test_nothing_is_committed_that_cannot_be_written(tmp_path):
    path = tmp_path / "readings.csv"
    readings = Readings.open(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        readings.commit("s1", "tumour")
    assert readings.of("s1") is None


def test_half_a_row_is_taken_back(tmp_path, monkeypatch):
    readings = Readings.open(tmp_path / "readings.csv")
    readings.commit("s0", "normal")
    before = readings.path.read_text()
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, line: real(file, line[:5]))
    with pytest.raises(OutputError, match="No space left"):
        readings.commit("s1", "tumour")
    assert readings.of("s1") is None
    assert readings.path.read_text() == before
