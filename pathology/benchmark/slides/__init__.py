"""Explanations of slides measured by their tiles."""
