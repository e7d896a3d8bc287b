"""What a viewer answers about parts of a slide: sums in regions, strongest tiles, annotations."""

import json
import uuid
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pathology.annotations.read import annotations_of, origin_of
from pathology.errors import AnnotationError
from pathology.geometry import Box
from pathology.viewer.evidence.evidence import Evidence, open_evidence
from pathology.viewer.evidence.gallery import gallery
from pathology.viewer.evidence.tiles import number_or_none
from pathology.viewer.library.library import Library
from pathology.viewer.regions.export import export_regions, file_name
from pathology.viewer.regions.ledger import RegionLedger, region_ledger
from pathology.viewer.regions.regions import (
    MOST_POINTS,
    MOST_REGIONS,
    parse_polygons,
    parse_regions,
    rings_of,
)

FILE = "the file"
"""What messages call annotations that were sent, whose name stays in the browser."""
FIRST_TILES = 12


def routes(library: Library) -> list[Route]:
    """The routes of regions, tiles in order of strength, and annotations."""
    return RegionRoutes(library).routes


class RegionRoutes:
    """Handlers; nothing of what is sent is kept."""

    def __init__(self, library: Library) -> None:
        self._library = library
        evidence = "/api/evidence/{id}"
        self.routes = [
            _post(f"{evidence}/regions", self.regions),
            _post(f"{evidence}/gallery", self.gallery),
            _post(f"{evidence}/export", self.export),
            _post("/api/slides/{id}/annotations", self.annotations),
        ]

    def regions(self, evidence: str, body: bytes) -> Response:
        """What an explanation holds of regions."""
        opened = open_evidence(self._library, evidence)
        slide = self._slide(opened)
        regions = parse_regions(json.loads(body), slide)
        return JSONResponse(
            {
                "regions": [
                    {"id": region.id, "polygons": rings_of(region.geometry)}
                    | _told(region_ledger(opened, region.geometry, slide))
                    for region in regions
                ]
            }
        )

    def gallery(self, evidence: str, body: bytes) -> Response:
        """The tiles that argue most."""
        opened = open_evidence(self._library, evidence)
        asked = json.loads(body)
        if not isinstance(asked, dict):
            raise ValueError('tiles are asked for as {"order": "for", "n": 12, "inside": null}')
        tiles, count = opened.tiles, asked.get("n", FIRST_TILES)
        if tiles is None:
            raise ValueError(opened.tiles_note or "there are no tiles")
        if type(count) is not int:
            raise ValueError(f"n must be a whole number, got {count!r}")
        inside = asked.get("inside")
        if inside is not None:
            inside = parse_polygons(inside, self._slide(opened))
        found = gallery(tiles, str(asked.get("order", "for")), count, inside)
        stated = found.statement
        return JSONResponse(
            {
                "tiles": [tiles.tile(int(index)) for index in found.indices],
                "curve": {"counts": found.counts.tolist(), "shares": found.shares.tolist()},
                "statement": None
                if stated is None
                else {"tiles": stated.tiles, "share": stated.share, "of": stated.of},
                "evidence": found.evidence,
                "unknown": found.unknown,
            }
        )

    def export(self, evidence: str, body: bytes) -> Response:
        """Regions with their numbers, for QuPath."""
        opened = open_evidence(self._library, evidence)
        slide = self._slide(opened)
        regions = parse_regions(json.loads(body), slide)
        bounds = self._library.open(opened.slide.id).bounds
        return Response(
            export_regions(opened, regions, slide, bounds),
            media_type="application/geo+json",
            headers={"Content-Disposition": f'attachment; filename="{file_name(opened)}"'},
        )

    def annotations(self, slide: str, body: bytes) -> Response:
        """The areas drawn in a file of QuPath, ASAP or ImageScope, on the slide."""
        opened = self._library.open(slide)
        drawn = annotations_of(body, FILE)
        drawn = drawn.placed(opened, origin_of(opened, "auto", drawn))
        if len(drawn.drawn) > MOST_REGIONS:
            raise AnnotationError(
                f"{FILE} holds {len(drawn.drawn):,} areas, at most {MOST_REGIONS:,} can be shown;"
                " export annotations only, without tiles and detections"
            )
        regions, seen = [], set()
        points = 0
        for number, one in enumerate(drawn.drawn, 1):
            names = tuple(name for name in one.names if name)
            identity = _uuid(one.identity)
            if identity is None or identity in seen:
                identity = str(uuid.uuid4())
            seen.add(identity)
            polygons = rings_of(one.geometry)
            points += sum(len(ring) for rings in polygons for ring in rings)
            regions.append(
                {
                    "id": identity,
                    "name": one.title or (names[0] if names else f"Annotation {number}"),
                    "classes": list(names),
                    "polygons": polygons,
                    "colour": one.colour or None,
                }
            )
        if points > MOST_POINTS:
            raise AnnotationError(
                f"{FILE} holds {points:,} points, at most {MOST_POINTS:,} can be shown; simplify"
                " the outlines"
            )
        notes = [f"{what}: {count}" for what, count in drawn.notes.items()]
        return JSONResponse({"regions": regions, "notes": notes})

    def _slide(self, evidence: Evidence) -> Box:
        return Box(0, 0, *self._library.open(evidence.slide.id).size)


def _post(path: str, answer: Callable[[str, bytes], Response]) -> Route:
    """A route of something that is asked with a body; reading it and answering takes a thread."""

    async def handler(request: Request) -> Response:
        return await run_in_threadpool(answer, request.path_params["id"], await request.body())

    return Route(path, handler, methods=["POST"], name=answer.__name__)


def _told(ledger: RegionLedger) -> dict[str, Any]:
    """A region's ledger as JSON has it; numbers that are none are null."""
    sums = ledger.sums
    numbers = {
        "sum": sums.sum,
        "for": sums.positive,
        "against": sums.negative,
        "at_um": sums.at_um,
        "area_mm2": ledger.area_mm2,
        "covered_mm2": sums.covered_mm2,
        "density": ledger.density,
        "share": ledger.share,
        "total": ledger.total,
        "score": ledger.score,
        "gap": ledger.gap,
    }
    return {name: number_or_none(number) for name, number in numbers.items()} | {
        "tiles": ledger.tiles,
        "undivided": ledger.undivided,
        "ledger": [[name, number_or_none(number)] for name, number in ledger.parts],
    }


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
