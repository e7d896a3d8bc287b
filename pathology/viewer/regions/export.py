"""Regions with their numbers as QuPath's annotations: GeoJSON.

QuPath shows measurements with two decimals, so each has a unit in which two are enough, and says it
in its name, as the tiles of ``tiles.geojson.gz`` do. A region's ``share`` is what a tile's is: its
part of the slide's score.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pathology.annotations.annotation import Annotation
from pathology.annotations.export import annotation_feature, collection_text
from pathology.geometry import Box
from pathology.viewer.evidence.evidence import Evidence
from pathology.viewer.regions.ledger import RegionLedger, region_ledger
from pathology.viewer.regions.regions import Region

IDENTITIES = uuid.UUID("d3a6c1b0-51f4-5c0e-8a5e-0c9f6a1e7b24")
"""The name space of regions that come without an identity of QuPath's kind."""
DIGITS = 9
"""Of measurements."""


def export_regions(evidence: Evidence, regions: Sequence[Region], slide: Box, bounds: Box) -> str:
    """Regions as the text of a GeoJSON file for QuPath (drag and drop, or File, Import objects).

    The collection's member ``bcos_pathology``, which QuPath passes over, holds the explanation's
    record; each annotation's metadata say what it is of.

    Args:
        evidence: an explanation, or the difference of two.
        regions: on its slide.
        slide: the whole slide.
        bounds: its scanned part, from whose corner QuPath counts.

    Raises:
        AnnotationError: an outline is too long to be summed.
        PathologyError: the map cannot be read.
    """
    corner = bounds.x, bounds.y
    metadata = _metadata(evidence)
    features = [
        annotation_feature(
            Annotation(
                names=region.classes or ("",),
                geometry=region.geometry,
                where=region.name,
                title=region.name,
                colour=region.colour,
                identity=_identity(evidence, region),
            ),
            measurements(_subject(evidence), region_ledger(evidence, region.geometry, slide)),
            metadata,
            corner,
        )
        for region in regions
    ]
    about = {"origin": list(corner), "unit": "level-0 px", "count": len(features)}
    record = {"title": evidence.title, **evidence.record, "regions": about}
    return "".join(collection_text(features, {"bcos_pathology": record}))


def measurements(subject: str, ledger: RegionLedger) -> dict[str, float]:
    """What QuPath shows of a region.

    Args:
        subject: what is explained; part of the names, so that numbers of several explanations can
            be told apart.
        ledger: of the region.
    """
    sums, mm2 = ledger.sums, ledger.area_mm2
    numbers = {
        f"{subject}: share [µlogit]": sums.sum * 1e6,
        f"{subject}: share for [µlogit]": sums.positive * 1e6,
        f"{subject}: share against [µlogit]": sums.negative * 1e6,
        f"{subject}: for and against within [µm]": sums.at_um,
        f"{subject}: density [mlogit/mm²]": ledger.density * 1e3,
        f"{subject}: part of the map [%]": ledger.share * 1e2,
        f"{subject}: covered [%]": min(sums.covered_mm2 / mm2, 1.0) * 1e2,
    }
    if ledger.tiles is not None:
        numbers[f"{subject}: tiles"] = float(ledger.tiles)
    return {name: float(f"{number:.{DIGITS}g}") + 0.0 for name, number in numbers.items()}


def file_name(evidence: Evidence) -> str:
    """What to call the file, in letters that any header and disk takes."""
    name = f"{evidence.slide.name}_{_subject(evidence)}_regions"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") + ".geojson"


def _subject(evidence: Evidence) -> str:
    """What numbers are of: the target, and the runs where these are what is compared."""
    return evidence.target if len(evidence.entries) == 1 else evidence.title


def _metadata(evidence: Evidence) -> Mapping[str, str]:
    """Where numbers are from, in few words."""
    settings, provenance = (evidence.record.get(name, {}) for name in ("settings", "provenance"))
    told: dict[str, Any] = {
        "target": evidence.target,
        "run": " \N{MINUS SIGN} ".join(entry.run.name for entry in evidence.entries),
        "slide": evidence.slide.name,
        "slide stamp": settings.get("slide"),
        "checkpoint": settings.get("checkpoint"),
        "made": provenance.get("made"),
        "version": provenance.get("version"),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def _identity(evidence: Evidence, region: Region) -> str:
    """The region's own identity where it is one of QuPath's kind, else one that follows from it."""
    try:
        return str(uuid.UUID(region.id))
    except ValueError:
        return str(uuid.uuid5(IDENTITIES, f"{evidence.slide.id}\n{region.id}"))
