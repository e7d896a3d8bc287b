"""Measuring models against those that people would otherwise use."""

from pathology.benchmark.speed import SpeedBenchmark
from pathology.benchmark.targets import met, target

__all__ = ["SpeedBenchmark", "met", "target"]
