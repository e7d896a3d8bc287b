"""Whole-slide images read as RGB at any micrometres per pixel, whatever the file format."""

from pathology.slides.levels import Level
from pathology.slides.memory import MemorySlide
from pathology.slides.slide import Slide, open_slide

__all__ = ["Level", "MemorySlide", "Slide", "open_slide"]
