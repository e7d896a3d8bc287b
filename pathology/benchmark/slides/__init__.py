"""Explanations of whole slides by their tiles: methods, and what they are measured by."""
