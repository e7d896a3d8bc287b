import sys

import pytest

from pathology.errors import MissingExtraError, PathologyError
from pathology.maps.extras import imported


def test_a_missing_package_says_which_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingExtraError) as error:
        imported("highdicom", "dicom")
    assert 'needs highdicom: pip install "bcos-pathology[dicom]"' in str(error.value)
    assert "\n" not in str(error.value)
    assert isinstance(error.value, PathologyError)


def test_modules_of_packages_are_found():
    assert imported("zarr.errors", "zarr").__name__ == "zarr.errors"
