"""The quick start runs from top to bottom in a folder of its own, without a network."""

import os
import re
import resource
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quick_start.ipynb"

# Python's sockets reach this machine alone; what the kernel itself speaks through is not Python's.
NO_NETWORK = """
import socket

_connect = socket.socket.connect


def _connect_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"no network here, and {address} was asked for")
    return _connect(self, address)


socket.socket.connect = _connect_here
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The notebook with its outputs, its folder, and the seconds of a processor that it took."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(NO_NETWORK))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
            patch.setenv(name, str(folder / name))
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        before = processor_s()
        client = NotebookClient(
            notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}}
        )
        client.execute()
    return notebook, folder, processor_s() - before


def processor_s():
    """What processes that this one started, and that have ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def texts(notebook):
    """What cells printed, all in one."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def shown(notebook, kind):
    """What cells returned, of one kind, in order."""
    return [
        output.data[kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert NOTEBOOK.stat().st_size < 20_000


def test_a_tile_is_explained_exactly(ran):
    logit, total = re.search(r"logit (\S+), bias \+ contributions (\S+)\n", texts(ran[0])).groups()
    assert float(total) == pytest.approx(float(logit), abs=1e-4)
    assert len(shown(ran[0], "image/png")) == 1


def test_a_slide_s_ledger_closes(ran):
    printed = texts(ran[0])
    score = float(re.search(r"^score (\S+)$", printed, re.M)[1])
    parts = re.search(r"^bias (\S+), map (\S+), cut off (\S+)$", printed, re.M).groups()
    assert sum(map(float, parts)) == pytest.approx(score, abs=1e-4)
    assert "closed: True" in printed
    assert any("tumour" in page and "<img" in page for page in shown(ran[0], "text/html"))
    explained = ran[1] / "quick_start" / "explained" / "run" / "test_000" / "tumour"
    assert (explained / "report.html").is_file()


def test_what_was_trained_is_measured(ran):
    auroc = re.search(r"^\s*auroc\s+(\d\.\d+)", texts(ran[0]), re.M)
    assert 0.9 < float(auroc[1]) <= 1  # 0.99; the text says that it has learnt
    assert (ran[1] / "quick_start" / "run" / "evaluation" / "test.html").is_file()


def test_the_viewer_is_shown(ran):
    assert len(shown(ran[0], "application/vnd.jupyter.widget-view+json")) == 1


def test_cells_warn_of_nothing(ran):
    outputs = [output for cell in ran[0].cells for output in cell.get("outputs", ())]
    errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert "Warning" not in "".join(errors)


def test_it_is_quick(ran):
    """About a minute of one core by itself; twice as much where cores are shared with others."""
    assert 1 < ran[2] < 120
