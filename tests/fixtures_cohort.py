"""A small synthetic cohort and its tiles, made once per test session."""

import pytest


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Manifest of three synthetic slides of 1536 px, one per split, at 0.5 um/px."""
    from pathology.synthetic import make_cohort

    folder = tmp_path_factory.mktemp("cohort")
    return make_cohort(folder, train=1, val=1, test=1, size_px=(1536, 1536), mpp=0.5, seed=7)


@pytest.fixture(scope="session")
def cohort_tiles(cohort, tmp_path_factory):
    """Folder of labelled tile tables of the cohort, 64 px at 0.5 um/px."""
    from pathology.cli import main

    folder = tmp_path_factory.mktemp("tiles")
    arguments = ["tile", "--slides", str(cohort), "--out", str(folder)]
    assert main([*arguments, "--size-px", "64", "--tile-mpp", "0.5"]) == 0
    return folder


@pytest.fixture
def rng():
    """The same random numbers in every test."""
    import numpy as np

    return np.random.default_rng(0)
