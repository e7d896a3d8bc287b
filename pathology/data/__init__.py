"""Manifests, datasets, data modules; `manifest` and `slide_list` start without torch."""
