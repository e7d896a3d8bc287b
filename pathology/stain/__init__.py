"""Stain normalisation: fitted once per slide, applied to tiles on any device."""

from pathology.stain.fit import fit_image, fit_profile
from pathology.stain.folder import StainFolder
from pathology.stain.normaliser import StainNormaliser
from pathology.stain.profile import Method, StainProfile, StainSettings, reference_profile

__all__ = [
    "Method",
    "StainFolder",
    "StainNormaliser",
    "StainProfile",
    "StainSettings",
    "fit_image",
    "fit_profile",
    "reference_profile",
]
