"""Slides as tiles of pixels."""
