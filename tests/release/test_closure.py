"""What an installation is made of: requirements of requirements, extras, markers."""

from importlib.metadata import PackageNotFoundError, PathDistribution

import pytest

from scripts.closure import closure
from scripts.try_release import differences, wanted


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretends that distributions with these requirements are installed."""

    def install(**requirements):
        for name, lines in requirements.items():
            folder = tmp_path / f"{name}-1.0.dist-info"
            folder.mkdir()
            text = "".join(f"Requires-Dist: {line}\n" for line in lines)
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n{text}")
        monkeypatch.syspath_prepend(tmp_path)
        return lambda name: PathDistribution(tmp_path / f"{name}-1.0.dist-info")

    return install


def test_requirements_of_requirements(installed):
    installed(aa_x=["bb-x>=1"], bb_x=["cc-x"], cc_x=["aa-x"], dd_x=[])
    assert set(closure(["AA.x"])) == {"aa-x", "bb-x", "cc-x"}


def test_an_extra_brings_its_own_wherever_it_is_asked_for(installed):
    installed(aa_x=['bb-x; extra == "more"'], bb_x=[], cc_x=["aa-x[more]", "aa-x"])
    assert set(closure(["aa-x"])) == {"aa-x"}
    assert set(closure(["aa-x[more]"])) == {"aa-x", "bb-x"}
    assert set(closure(["aa-x", "cc-x"])) == {"aa-x", "bb-x", "cc-x"}


def test_other_systems_requirements_are_left_out(installed):
    installed(aa_x=['zz-x; sys_platform == "none"', 'bb-x; python_version >= "3"'], bb_x=[])
    assert set(closure(["aa-x"])) == {"aa-x", "bb-x"}


def test_what_is_not_installed_is_an_error(installed):
    installed(aa_x=["zz-x"])
    with pytest.raises(PackageNotFoundError, match="zz-x"):
        closure(["aa-x"])


def test_only_extras_that_are_tried_are_wanted(installed):
    ours = installed(aa_x=["bb-x>=1", 'cc-x; extra == "a"', 'dd-x; extra == "b"'])("aa_x")
    assert wanted(ours, ()) == ["bb-x>=1"]
    assert wanted(ours, ("b",)) == ["bb-x>=1", "dd-x"]


def test_files_that_are_missing_or_changed_are_named():
    assert list(differences({"a": b"1", "b": b"2"}, {"a": b"1", "b": b"3", "c": b""})) == ["b", "c"]
