"""Manifests, datasets and data modules; import from the modules (`manifest` starts without torch)."""
