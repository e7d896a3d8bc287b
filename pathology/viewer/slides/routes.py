"""What a viewer tells of its slides: their list, pictures of them, and the reader's readings."""

import math
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import bcos_vit
from pathology.errors import PathologyError
from pathology.geometry import Box
from pathology.slides import Slide
from pathology.viewer.evidence.limits import SharedLimits
from pathology.viewer.evidence.tiles import number_or_none
from pathology.viewer.http import kept, number
from pathology.viewer.in_turn import in_turn
from pathology.viewer.library.library import EvidenceEntry, Library, SlideEntry
from pathology.viewer.slides.tiles import (
    TILE_PX,
    VERSION,
    EncodedTiles,
    SlidePyramid,
    region_jpeg,
    tile_jpeg,
)

THUMBNAIL_PX = 256
LARGEST_PX = 512
"""Of the longer side of a region."""
BEYOND_PX = 4096
"""How far a region may reach over the slide's edge, in level-0 pixels: a large tile's width."""
PREDICTED = "predicted"
"""The folder of a target that the model chose, see `pathology explain`."""


def routes(library: Library) -> list[Route]:
    """The routes of the list and of slides."""
    return SlideRoutes(library).routes


class SlideRoutes:
    """Handlers, and the tiles that they encoded last."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._tiles = EncodedTiles()
        self._limits = SharedLimits(library.evidence)
        slide = "/api/slides/{slide}"
        self.routes = [
            Route("/api/library", self.library),
            Route(slide, self.slide),
            Route(f"{slide}/thumbnail.jpg", in_turn(self.thumbnail)),
            Route(f"{slide}/tiles/{{level:int}}/{{x:int}}/{{y:int}}.jpg", in_turn(self.tile)),
            Route(f"{slide}/region.jpg", self.region),
            Route(f"{slide}/reading", self.read, methods=["POST"]),
        ]

    def library(self, request: Request) -> Response:
        """Slides, runs and evidence."""
        library = self._library
        library.refresh()
        return JSONResponse(
            {
                "version": bcos_vit.__version__,
                "blind": library.readings is not None,
                "runs": [{"id": run.id, "name": run.name} for run in library.runs],
                "slides": [self._listed(slide) for slide in library.slides],
                "evidence": [self._evidence(entry) for entry in library.evidence],
                "limits": self._limits.get(),
            }
        )

    def _listed(self, slide: SlideEntry) -> dict[str, Any]:
        hidden = self._library.is_hidden(slide)
        opened = self._library.opened(slide)
        place = {"size": None, "mpp": None, "size_um": None} if opened is None else _place(opened)
        return {
            "id": slide.id,
            "name": slide.name,
            "labels": {} if hidden else dict(slide.labels),  # one may be the truth
            "problem": slide.problem,
            **place,
            "committed": self._library.reading(slide) is not None,
            "evidence": [entry.id for entry in self._library.evidence_of(slide)],
        }

    def _evidence(self, entry: EvidenceEntry) -> dict[str, Any]:
        hidden = self._library.is_hidden(entry.slide)
        known: dict[str, Any] = {
            "id": entry.id,
            "run": entry.run.id,
            "slide": entry.slide.id,
            "target": entry.folder.name,
            "score": None,
            "gap": None,
            "is_closed": None,
            "undivided": None,
            "hidden": hidden,
            "problem": None,
        }
        try:
            target, ledger = entry.target, entry.explanation.ledger
            problem = None if hidden else self._library.mismatch(entry)
        except PathologyError:
            return known | {"problem": "its record is damaged; explain the slide again"}
        if hidden:
            # The class that a model chose is its prediction; the folder's name does not tell it.
            is_chosen = entry.folder.name == PREDICTED
            return known if is_chosen else known | {"target": target}
        return known | {
            "target": target,
            "score": number_or_none(ledger.score),
            "gap": number_or_none(ledger.gap),
            "is_closed": ledger.is_closed,
            "problem": problem,
            "undivided": None if ledger.undivided is None else ledger.undivided.tiles,
        }

    def slide(self, request: Request) -> Response:
        """What a slide is."""
        entry = self._library.slide(request.path_params["slide"])
        slide = self._library.open(entry.id)
        bounds = slide.bounds
        return JSONResponse(
            {
                "id": entry.id,
                "name": entry.name,
                **_place(slide),
                "mpp_source": slide.mpp_source,
                "levels": SlidePyramid.of(slide).levels,
                "tile_px": TILE_PX,
                "bounds": [bounds.x, bounds.y, bounds.width, bounds.height],
                "background": "#{:02x}{:02x}{:02x}".format(*slide.background),
                "vendor": slide.properties.get("openslide.vendor"),
                "power": slide.properties.get("openslide.objective-power"),
            }
        )

    def thumbnail(self, request: Request) -> Response:
        """The whole slide, small."""

        def draw(slide: Slide) -> bytes:
            box = Box(0, 0, *slide.size)
            return region_jpeg(slide, box, min(THUMBNAIL_PX, math.ceil(max(slide.size))))

        return self._picture(request, draw, "thumbnail")

    def tile(self, request: Request) -> Response:
        """A tile of the pyramid."""
        level, x, y = (request.path_params[name] for name in ("level", "x", "y"))
        return self._picture(request, lambda slide: tile_jpeg(slide, level, x, y), level, x, y)

    def region(self, request: Request) -> Response:
        """Any box."""
        box = Box(*(number(request, name) for name in ("x", "y", "width", "height")))
        px = number(request, "px", LARGEST_PX)
        if not 1 <= px <= LARGEST_PX:
            raise ValueError(f"px must be from 1 to {LARGEST_PX}, got {px:g}")

        def draw(slide: Slide) -> bytes:
            if box.intersection(Box(0, 0, *slide.size)) is None:
                raise ValueError("the region lies outside of the slide")
            beyond = (-box.x, -box.y, box.right - slide.size.width, box.bottom - slide.size.height)
            if max(beyond) > BEYOND_PX:
                raise ValueError(f"the region reaches over {BEYOND_PX:,} px out of the slide")
            if min(box.width, box.height) < 1:
                raise ValueError("a region is a pixel of the slide wide and high at least")
            return region_jpeg(slide, box, int(px))

        return self._picture(request, draw, "region", box, int(px))

    def _picture(
        self, request: Request, draw: Callable[[Slide], bytes], *names: object
    ) -> Response:
        """What ``draw`` makes of the slide, unless the browser or we have it."""
        slide = self._library.open(request.path_params["slide"])
        key = (VERSION, self._library.stamp(slide), *names)

        def encoded() -> bytes:
            found = self._tiles.get(key)
            if found is None:
                found = draw(slide)
                self._tiles.put(key, found)
            return found

        return kept(request, "image/jpeg", encoded, *key)

    async def read(self, request: Request) -> Response:
        """Commit a reading; what was said of the slide is shown from then on."""
        entry = self._library.slide(request.path_params["slide"])
        if self._library.readings is None:
            raise ValueError("readings are made in blind mode; start with --blind readings.csv")
        body = await request.json()
        if not isinstance(body, dict):
            raise ValueError("a reading is an object with call, confidence and note")
        call, confidence, note = (body.get(name) for name in ("call", "confidence", "note"))
        if not isinstance(call, str) or not isinstance(note, str | None):
            raise ValueError("call and note of a reading are texts")
        if not (confidence is None or (type(confidence) in (int, float))):
            raise ValueError("confidence of a reading is a number, or null")
        self._library.readings.commit(entry.name, call, confidence, note or "")
        return JSONResponse({"committed": True})


def _place(slide: Slide) -> dict[str, Any]:
    return {
        "size": list(slide.size),
        "mpp": list(slide.mpp),
        "size_um": list(SlidePyramid.of(slide).size_um),
    }
