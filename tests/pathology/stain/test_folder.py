"""The folder of profiles that training, evaluation and explanation read."""

import pytest

from pathology.errors import ManifestError, StampMismatchError
from pathology.stain import StainFolder, StainSettings, fit_image, reference_profile


@pytest.fixture
def folder(make_tissue, tmp_path):
    reference_profile("macenko").save(tmp_path / "target.json")
    profile = fit_image(make_tissue(5000)[0], name="a")
    profile.save(tmp_path / "a.json")
    return StainFolder(tmp_path), profile


def test_a_profile_is_that_of_the_slide(folder):
    stains, profile = folder
    assert stains.profile("a", profile.source.stamp, "stored") == profile
    assert stains.normaliser().target == stains.target == reference_profile("macenko")


def test_no_target_and_no_profile_say_what_to_do(folder, tmp_path):
    stains, _ = folder
    with pytest.raises(ManifestError, match=r"b\.json: no stain profile of slide 'b'; run `path"):
        stains.profile("b", "stamp", "stored")
    with pytest.raises(ManifestError, match=r"target\.json: no target .* run `pathology stain`"):
        StainFolder(tmp_path / "elsewhere")


def test_a_profile_of_another_slide_is_refused(folder):
    with pytest.raises(StampMismatchError, match="fitted on another slide"):
        folder[0].profile("a", "another stamp", "stored")


def test_a_profile_of_another_colour_is_refused(folder):
    stains, profile = folder
    with pytest.raises(StampMismatchError, match="fitted on stored colours, the tiles are of srgb"):
        stains.profile("a", profile.source.stamp, "srgb")


def test_published_numbers_are_no_slides_profile(folder, tmp_path):
    reference_profile("macenko").save(tmp_path / "b.json")
    with pytest.raises(StampMismatchError, match="fitted on another slide"):
        folder[0].profile("b", "", "stored")


def test_a_profile_of_another_method_is_refused(folder, make_tissue, tmp_path):
    other = fit_image(make_tissue(5000)[0], StainSettings("vahadane"))
    other.save(tmp_path / "a.json")
    with pytest.raises(StampMismatchError, match="made by vahadane, the target beside it by mac"):
        folder[0].profile("a", other.source.stamp, "stored")


def test_target_and_profiles_are_in_the_digest(folder, make_tissue, tmp_path):
    stains, _ = folder
    before = stains.digest(["a", "b"])
    assert before == StainFolder(tmp_path).digest(["a", "b"]) != stains.digest(["a"])
    fit_image(make_tissue(5000)[0]).save(tmp_path / "b.json")
    after = stains.digest(["a", "b"])
    assert after != before
    reference_profile("macenko", white=245).save(tmp_path / "target.json")
    assert StainFolder(tmp_path).digest(["a", "b"]) != after
