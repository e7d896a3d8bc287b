"""Manifests, datasets and data modules, one module each; `manifest` starts without torch."""
