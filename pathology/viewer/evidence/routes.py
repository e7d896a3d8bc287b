"""What a viewer tells of explanations: their ledger, maps as numbers, and tiles."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pathology.geometry import Box
from pathology.viewer.evidence.evidence import Evidence, open_evidence
from pathology.viewer.evidence.heat_tiles import TILE_PX, heat_tile, step_of
from pathology.viewer.evidence.maps import EvidenceMap
from pathology.viewer.evidence.tiles import number_or_none
from pathology.viewer.http import kept, number
from pathology.viewer.in_turn import in_turn
from pathology.viewer.library.library import Library, UnknownIdError

MOST_BOXES = 2000
MOST_DIGITS = 9


def routes(library: Library) -> list[Route]:
    """The routes of explanations, and of differences of two."""
    return EvidenceRoutes(library).routes


class EvidenceRoutes:
    """Handlers; what they read is held open by the library."""

    def __init__(self, library: Library) -> None:
        self._library = library
        evidence = "/api/evidence/{evidence}"
        self.routes = [
            Route(evidence, self.info),
            Route(f"{evidence}/maps/{{name:path}}/{{level}}/{{x}}/{{y}}", in_turn(self.map_tile)),
            Route(f"{evidence}/at", self.at),
            Route(f"{evidence}/tiles/{{index}}", self.tile),
            Route(f"{evidence}/outlines", self.outlines),
        ]

    def info(self, request: Request) -> Response:
        """Everything but pixels and single tiles."""
        evidence = self._open(request)
        record, tiles = evidence.record, evidence.tiles
        places = record.get("places")
        return _json(
            {
                "id": evidence.id,
                "slide": evidence.slide.id,
                "run": evidence.entries[0].run.id if len(evidence.entries) == 1 else None,
                "target": evidence.target,
                "title": evidence.title,
                "of": [
                    {
                        "id": entry.id,
                        "run": entry.run.id,
                        "run_name": entry.run.name,
                        "target": entry.target,
                    }
                    for entry in evidence.entries
                ],
                "ledger": evidence.ledger.to_dict() | {"total": evidence.ledger.total},
                "stains": record.get("stains", {}),
                "layers": record.get("layers"),
                "settings": record.get("settings", {}),
                "provenance": record.get("provenance", {}),
                "coefficients": record.get("coefficients", {}),
                "depth": record.get("settings", {}).get("depth"),
                "places": places,
                "tiles": None if tiles is None else len(tiles),
                "tiles_note": evidence.tiles_note,
                "maps": [_told(each) for each in evidence.maps.values()],
            }
        )

    def map_tile(self, request: Request) -> Response:
        """A square of a map; see :mod:`pathology.viewer.evidence.heat_tiles`."""
        evidence = self._open(request)
        name = request.path_params["name"]
        each = evidence.maps.get(name)
        if each is None:
            raise UnknownIdError(f"no map {name!r}; there are {', '.join(evidence.maps)}")
        level, x, y = (_whole(request.path_params[key]) for key in ("level", "x", "y"))
        # The step is part of it: a number means nothing without.
        parts = (evidence.id, name, each.stamp, step_of(each), level, x, y)
        kind = "application/octet-stream"
        return kept(request, kind, lambda: heat_tile(each, level, x, y), *parts)

    def at(self, request: Request) -> Response:
        """What the maps and tiles say of one location."""
        evidence = self._open(request)
        x, y = number(request, "x"), number(request, "y")
        tiles = evidence.tiles
        return _json(
            {
                "maps": {name: each.value(x, y) for name, each in evidence.maps.items()},
                "tiles": []
                if tiles is None
                else [tiles.tile(int(index)) for index in tiles.at(x, y)],
            }
        )

    def tile(self, request: Request) -> Response:
        """One tile."""
        evidence = self._open(request)
        tiles = evidence.tiles
        if tiles is None:
            raise UnknownIdError(evidence.tiles_note or "no tiles")
        index = _whole(request.path_params["index"])
        if index >= len(tiles):
            raise UnknownIdError(f"there are tiles 0 to {len(tiles) - 1}, got {index}")
        return _json(tiles.tile(index))

    def outlines(self, request: Request) -> Response:
        """Boxes of the tiles in view, to draw their grid; none where there are no tiles to tell."""
        tiles = self._open(request).tiles
        view = Box(*(number(request, name) for name in ("x", "y", "width", "height")))
        if tiles is None:
            return _json({"boxes": [], "truncated": False})
        found = tiles.within(view)
        boxes = tiles.boxes[found[:MOST_BOXES]]
        return _json({"boxes": boxes.tolist(), "truncated": len(found) > MOST_BOXES})

    def _open(self, request: Request) -> Evidence:
        return open_evidence(self._library, request.path_params["evidence"])


def _told(each: EvidenceMap) -> dict[str, Any]:
    """What a map is, besides its pixels."""
    (height, width), mpp = each.shapes[0], each.pixel_mpp()
    (x_um, y_um), reach = each.slide_mpp, each.range
    box = each.box
    return {
        "name": each.name,
        "label": each.label,
        "unit": each.unit,
        "signed": each.is_signed,
        "additive": each.kind == "sum",
        "width": width,
        "height": height,
        "levels": len(each.shapes),
        "tile_px": TILE_PX,
        "box_um": [box.x * x_um, box.y * y_um, box.width * x_um, box.height * y_um],
        "pixel_um": list(mpp),
        "step": step_of(each),
        "largest": reach.largest or 1.0,
        "limit": reach.limit or 1.0,
    }


def _json(content: Any) -> JSONResponse:
    return JSONResponse(_plain(content))


def _plain(content: Any) -> Any:
    """``content`` with null for numbers that JSON has no word for."""
    if isinstance(content, float):
        return number_or_none(content)
    if isinstance(content, dict):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return content


def _whole(text: str) -> int:
    """A whole number of a path.

    Raises:
        UnknownIdError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        raise UnknownIdError(f"{text[:40]!r} is no number of a level or tile")
    return int(text)
