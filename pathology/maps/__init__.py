"""Scalar rasters placed on slides, and their pyramids on disk."""
