"""Which slides a command is about, see :mod:`pathology.data.slide_list`."""

from pathology.data.slide_list import list_slides, slide_mpp

__all__ = ["list_slides", "slide_mpp"]
