"""What is installed, and what differs elsewhere."""

import bcos_vit
from pathology.cohort.on_ray import installed as module
from pathology.cohort.on_ray.installed import differences, installed


def test_builds_for_other_hardware_count_as_the_same(monkeypatch):
    monkeypatch.setattr(module, "version", lambda name: "2.11.0+cpu")
    one = installed.__wrapped__()
    monkeypatch.setattr(module, "version", lambda name: "2.11.0+cu130")
    other = installed.__wrapped__() | {"place": "another machine"}
    assert one["torch"] == "2.11.0"
    assert differences(one, other) == ""


def test_differences_are_named_with_what_is_missing():
    here = installed()
    there = here | {"place": "another machine", "torch": "0.4"}
    del there["timm"]
    assert differences(here, there) == (
        f"torch 0.4 rather than {here['torch']}, timm none rather than {here['timm']}"
    )
    assert differences(here, dict(here)) == ""


def test_one_version_of_other_source_is_another(monkeypatch, tmp_path):
    here = installed()
    assert here["bcos-pathology"].startswith(f"{bcos_vit.__version__} (source ")
    for text, name in ("a = 1\n", "one.py"), ("a = 1\r\n", "one.py"), ("a = 2\n", "one.py"):
        (tmp_path / name).write_bytes(text.encode())
        monkeypatch.setattr(module, "_root", lambda package: tmp_path)
        made = installed.__wrapped__()["bcos-pathology"]
        if text == "a = 1\n":
            first = made
        # How lines end is a matter of how a file was sent.
        assert (made == first) == (text.strip() == "a = 1")
