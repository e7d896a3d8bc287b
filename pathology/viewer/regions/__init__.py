"""Regions that are drawn on a slide, and what a map holds of them."""
