"""The engine that is asked for, or one line that says why not."""

import subprocess
import sys

import pytest

from pathology.cohort.choice import make_engine
from pathology.cohort.here import Here
from pathology.cohort.on_ray.engine import RayEngine
from pathology.cohort.processes import Processes


def test_on_this_machine_the_number_of_workers_decides():
    assert isinstance(make_engine(), Here)
    assert make_engine("local", 3, None, 2) == Processes(3, 2)


def test_on_a_cluster_no_number_of_workers_is_as_many_as_fit():
    assert make_engine("ray", address="auto", retries=3) == RayEngine("auto", 0, 3)
    assert make_engine("ray", 2) == RayEngine(None, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": -1}, "--workers must be at least 0, got -1"),
        ({"retries": -1}, "--retries must be at least 0, got -1"),
        ({"engine": "ray", "workers": -2}, "--workers must be at least 0, got -2"),
        ({"engine": "dask"}, "--engine must be local or ray, got 'dask'"),
        ({"address": "auto"}, "--address auto is a cluster's; it needs --engine ray"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, said):
    with pytest.raises(ValueError, match="--") as caught:
        make_engine(**arguments)
    assert str(caught.value) == said


def test_to_choose_loads_no_ray_torch_or_stores():
    code = (
        "import sys; from pathology.cohort.choice import make_engine;"
        " import pathology.cohort.each_slide; make_engine(workers=2); make_engine('ray');"
        " print([name for name in ('ray', 'fsspec', 'torch') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
