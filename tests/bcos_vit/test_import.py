"""Importing the package, its errors or its renderer loads no torch."""

import subprocess
import sys

import pytest


def modules_after(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["bcos_vit", "bcos_vit.errors", "bcos_vit.render"])
def test_light_modules_load_no_torch(module):
    assert not modules_after(f"import {module}") & {"torch", "timm", "pathology"}


def test_the_version_is_told():
    assert modules_after("import bcos_vit; assert bcos_vit.__version__.count('.') == 2")
