"""Profiles: what they hold, what they refuse, and their files."""

import json

import numpy as np
import pytest

from pathology.errors import ManifestError
from pathology.stain import StainProfile, StainSettings, fit_image, reference_profile


@pytest.mark.parametrize("method", ["macenko", "vahadane", "reinhard"])
def test_a_profile_survives_its_file(make_tissue, tmp_path, method):
    profile = fit_image(make_tissue(5000)[0], StainSettings(method, seed=3), name="a é")
    profile.save(tmp_path / "p.json")
    again = StainProfile.load(tmp_path / "p.json")
    assert again == profile
    assert again.digest() == profile.digest()
    assert again.settings.seed == 3
    assert hash(again) == hash(profile)


def test_the_reference_is_as_published():
    profile = reference_profile("macenko")
    published = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
    expected = published * np.array([[1.9705], [1.0308]]) / np.log(10)
    np.testing.assert_allclose(profile.matrix, expected, atol=1e-4)
    with pytest.raises(ValueError, match="name a slide or an image"):
        reference_profile("reinhard")


def test_any_number_changes_the_digest(make_tissue):
    digests = {fit_image(make_tissue(5000)[0], StainSettings(seed=s)).digest() for s in range(3)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2, wanted 1"),
        ({"amounts": [0.5, 0.0]}, "amounts must be positive"),
        ({"amounts": None}, "amounts must be finite"),
        ({"stains": [[1, 0, 0]]}, r"stains must be finite numbers of shape \(2, 3\)"),
        ({"white": [240, float("nan"), 240]}, "white"),
        ({"colour": 1}, "no profile has colour"),
        ({"settings": {"method": "ruifrok"}}, "method must be one of macenko"),
        ({"settings": {"speed": 3}}, "not a profile"),
        ({"method": "reinhard"}, "means must be finite"),
        ({"method": "ruifrok"}, "method must be one of macenko, vahadane, reinhard"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, said):
    path = tmp_path / "slide.json"
    path.write_text(json.dumps(reference_profile("macenko").to_dict() | change))
    with pytest.raises(ManifestError, match=said) as caught:
        StainProfile.load(path)
    assert str(path) in str(caught.value)
    assert "pathology stain" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_profile_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ManifestError, match=r"x\.json: the stain profile cannot be read"):
        StainProfile.load(tmp_path / "x.json")
    with pytest.raises(ManifestError, match="No such file"):
        StainProfile.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "ruifrok"}, {"white": 0}, {"white": 256}, {"white": "auto"}, {"palest": -0.1},
        {"percentile": 50}, {"sparsity": -1}, {"sparsity": float("nan")}, {"tiles": 0},
        {"pixels": 0}, {"seed": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StainSettings(**wrong)


def test_a_profile_of_means_has_no_vectors(make_tissue):
    with pytest.raises(ValueError, match="no stain vectors"):
        _ = fit_image(make_tissue(5000)[0], StainSettings("reinhard")).matrix
