"""Parts of a cohort."""

import pytest

from pathology.cohort.parts import parse_part


@pytest.mark.parametrize(
    ("text", "part"), [(None, (1, 1)), ("1/1", (1, 1)), ("3/16", (3, 16)), ("16/16", (16, 16))]
)
def test_parts_are_read(text, part):
    assert parse_part(text) == part


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/", "/4", "-1/4", "1/0", "a/b", "", " 1/4"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match="--part must be like 3/16") as caught:
        parse_part(text)
    assert repr(text) in str(caught.value)
