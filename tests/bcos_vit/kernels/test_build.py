"""Kernels are compiled once, kept where nobody else can write, and never needed."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bcos_vit.kernels import status
from bcos_vit.kernels.build import SWITCH, library
from bcos_vit.layers import BcosConv2d
from tests.fast_paths import COMPILERS, environment, kernels

WITHOUT = "; PyTorch's own operations do the same, more slowly"


@pytest.fixture
def cache(tmp_path):
    """A home for libraries that nobody has been in, as in a new account."""
    with kernels(True), environment(XDG_CACHE_HOME=str(tmp_path / "cache")):
        yield tmp_path / "cache" / "bcos_vit"


@pytest.fixture
def tools(tmp_path):
    """A folder where the only compiler is looked for: a script, made by the test."""
    folder = tmp_path / "tools"
    folder.mkdir()
    with environment(PATH=str(folder), XDG_CACHE_HOME=str(tmp_path / "cache"), **{SWITCH: None}):
        yield folder


def write_compiler(folder, script):
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def computed():
    """What a layer makes of some numbers, with its gradients."""
    torch.manual_seed(1)
    layer = BcosConv2d(5, 4, 3, padding=1).double()
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, layer.weight.grad]


def assert_computes_without_kernels(reason):
    """... the same numbers, up to rounding in another order of summation, and says why."""
    library.cache_clear()
    assert library("float") is None
    assert library("double") is None
    assert status().startswith("none (")
    assert status().endswith(WITHOUT)
    assert reason in status()
    assert "\n" not in status()
    found = computed()
    with kernels(False):
        expected = computed()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# --- with a compiler ----------------------------------------------------------------------------


def test_where_there_is_a_compiler_there_are_kernels_and_the_numbers_are_the_same(cache):
    assert status() == "compiled for this processor"
    found = computed()
    with kernels(False):
        expected = computed()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_libraries_are_all_that_is_kept_and_are_the_users_own(cache):
    library("float"), library("double")
    names = sorted(path.name for path in cache.iterdir())
    assert [name.split("-")[1] for name in names] == ["double", "float"]
    assert all(name.endswith(".so") for name in names)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_a_second_process_does_not_compile_again(cache):
    library("float")
    (made,) = cache.iterdir()
    before = made.stat()
    # As in a new process: nothing is remembered but what lies in the cache.
    library.cache_clear()
    assert library("float") is not None
    assert [path.name for path in cache.iterdir()] == [made.name]
    after = made.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_answer_holds_for_the_life_of_the_process(cache):
    assert library("float") is library("float")


def test_processes_that_start_together_do_not_disturb_each_other(cache):
    code = (
        "from bcos_vit.kernels.build import library;"
        "assert library('float')['squares_rows'] is not None"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    running = [subprocess.Popen(command, cwd=Path.cwd()) for _ in range(3)]
    assert [each.wait(timeout=120) for each in running] == [0, 0, 0]
    assert len(list(cache.iterdir())) == 1


# --- without one --------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["off", "OFF", "0", "false"])
def test_kernels_are_switched_off_by_the_environment(word):
    with environment(**{SWITCH: word}):
        assert_computes_without_kernels(f"switched off by {SWITCH}")


def test_without_a_compiler_there_are_no_kernels(tools):
    assert_computes_without_kernels("no C compiler called cc, gcc or clang")


def test_a_compiler_that_does_not_run_makes_no_kernels(tools):
    write_compiler(tools, "exit 3")
    assert_computes_without_kernels("exit status 3")


def test_a_compiler_that_fails_leaves_nothing_behind_and_its_words_are_kept(tools, tmp_path):
    write_compiler(tools, '[ "$1" = --version ] || { echo "disk is full" >&2; exit 1; }')
    assert_computes_without_kernels("failed: disk is full")
    assert list((tmp_path / "cache" / "bcos_vit").iterdir()) == []


def test_a_compiler_that_stops_half_way_leaves_no_library(tools, tmp_path):
    # It has written some of what it was asked for, ``-o FILE``, when it fails.
    script = """[ "$1" = --version ] && exit 0
while [ "$1" != -o ]; do shift; done
echo half > "$2"
exit 1"""
    write_compiler(tools, script)
    assert_computes_without_kernels("failed")
    assert list((tmp_path / "cache" / "bcos_vit").iterdir()) == []


def test_a_file_that_is_no_library_is_not_loaded(tools):
    script = """[ "$1" = --version ] && exit 0
while [ "$1" != -o ]; do shift; done
echo rubbish > "$2\""""
    write_compiler(tools, script)
    assert_computes_without_kernels("kernels-float-")


def test_a_compiler_without_threads_is_asked_again(cache, tmp_path):
    """As on a Mac, where ``-fopenmp`` is an error."""
    real = next(filter(None, map(shutil.which, COMPILERS)))
    folder = tmp_path / "tools"
    folder.mkdir()
    script = f"""case " $* " in *" -fopenmp "*) exit 1;; esac
exec {real} "$@\""""
    write_compiler(folder, script)
    with environment(PATH=f"{folder}:{os.environ['PATH']}"):
        assert status() == "compiled for this processor"
        found = computed()
    with kernels(False):
        for one, other in zip(found, computed(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


# --- where libraries are kept -------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(cache, mode):
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert_computes_without_kernels(f"{cache} belongs to, or can be written by, others")
    assert list(cache.iterdir()) == []


def test_a_folder_of_somebody_else_is_refused(cache, monkeypatch):
    cache.mkdir(parents=True, mode=0o700)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert_computes_without_kernels(f"{cache} belongs to, or can be written by, others")


def test_where_nothing_can_be_kept_there_are_no_kernels(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file in the way")
    assert_computes_without_kernels(str(cache))


def test_without_a_cache_of_its_own_the_users_is_taken(tmp_path):
    with kernels(True), environment(XDG_CACHE_HOME="", HOME=str(tmp_path)):
        assert library("double") is not None
    assert [p.suffix for p in (tmp_path / ".cache" / "bcos_vit").iterdir()] == [".so"]


def test_a_user_without_a_home_has_no_kernels(monkeypatch):
    """As a container has it that runs under a number nobody was given."""

    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with kernels(True), environment(XDG_CACHE_HOME=None, HOME=None):
        assert_computes_without_kernels("home directory")
