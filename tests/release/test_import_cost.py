"""What an import loads: sets of modules, compared between fresh processes, not times."""

import subprocess
import sys

import pytest

# All of bcos_vit; modules are named without being imported.
BCOS_VIT = """
import importlib, pkgutil, bcos_vit
for each in pkgutil.walk_packages(bcos_vit.__path__, "bcos_vit."):
    importlib.import_module(each.name)
"""


def modules_after(code):
    """Names of the modules that are loaded once ``code`` has run."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('loaded', *sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split("loaded ")[-1].split())


def packages(modules):
    """The third-party packages among them."""
    return {name.partition(".")[0] for name in modules} - {*sys.stdlib_module_names, "__main__"}


@pytest.fixture(scope="module")
def nothing():
    return packages(modules_after("pass"))


def test_bcos_vit_loads_nothing_but_itself(nothing):
    assert packages(modules_after("import bcos_vit")) - nothing == {"bcos_vit"}


def test_all_of_bcos_vit_loads_no_more_than_torch_and_timm():
    those = modules_after("import torch, timm")
    ours = modules_after(BCOS_VIT)
    assert packages(ours) - packages(those) == {"bcos_vit"}
    # Nor much more of these: no compiler, no export, no training on several machines.
    more = {name for name in ours - those if not name.startswith("bcos_vit")}
    costly = ("torch._inductor", "torch._dynamo", "torch.onnx", "torch.export")
    assert not {name for name in more if name.startswith(costly)}


@pytest.mark.parametrize(
    "code",
    [
        "import pathology",
        "from pathology.cli import main; main(['--help'])",
        "from pathology.cli import main; main(['--version'])",
        "from pathology.cli import main; main(['train', '--help'])",
    ],
)
def test_pathology_answers_without_any_package(code, nothing):
    assert packages(modules_after(code)) - nothing <= {"bcos_vit", "pathology"}
