"""Which graphics cards there are, by the names that a child process can be given."""

import os

import pytest
import torch

from pathology.cohort.graphics import graphics_cards, see_only


@pytest.mark.parametrize(
    ("named", "count", "cards"),
    [
        (None, 3, ["0", "1", "2"]),
        (None, 0, []),
        ("5, 2", 2, ["5", "2"]),
        ("GPU-1a,MIG-2b", 2, ["GPU-1a", "MIG-2b"]),
        ("3,99", 1, ["3"]),  # torch counts up to the first that is not there
        ("", 0, []),
        ("-1", 0, []),
    ],
)
def test_cards_are_those_that_this_process_sees(monkeypatch, named, count, cards):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert graphics_cards() == cards


def test_a_process_is_shown_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    see_only("1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_looking_for_cards_takes_none_of_their_memory():
    # Of the whole process: a test before may have used the card.
    was = torch.cuda.is_initialized()
    assert len(graphics_cards()) == torch.cuda.device_count() > 0
    assert torch.cuda.is_initialized() == was
