"""Whole slides in, exactly explained predictions out."""
