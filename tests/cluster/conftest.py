"""One cluster for all tests here, which joins and is left in moments."""

import pytest

from tests.made_cohort import SAME_EVERYWHERE


@pytest.fixture(scope="package")
def stores(tmp_path_factory):
    """Folder of settings of fsspec, in which tests say where their stores are."""
    return tmp_path_factory.mktemp("fsspec")


@pytest.fixture(scope="package")
def cluster(stores):
    """A machine with two processors, nobody's to change."""
    from tests.cluster.own_cluster import own_cluster

    with own_cluster(2, {**SAME_EVERYWHERE, "FSSPEC_CONFIG_DIR": str(stores)}) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def slides(tmp_path_factory):
    """Six small slides, and what they come to where nothing goes wrong."""
    from tests.cluster.faulty_tiles import made_slides

    return made_slides(tmp_path_factory.mktemp("slides"), 6)


@pytest.fixture
def tiles(slides, cluster, tmp_path):
    """Runs over the six slides on the cluster."""
    from tests.cluster.faulty_tiles import FaultyTiles

    return FaultyTiles(slides, tmp_path, cluster.address)
