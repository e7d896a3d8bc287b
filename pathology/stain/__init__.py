"""Stain normalisation: fitted once per slide, applied to tiles on any device."""
