"""An explanation as a notebook shows it: the picture with its scale, and the ledger.

A fragment of HTML without script or style sheet, since notebooks strip them; colours of text are
the notebook's own, so that it reads in light and in dark.
"""

import base64
import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pathology.explain.ledger import Ledger
from pathology.explain.results.overlay import STYLE, heat_layer, overlay_figure, signed
from pathology.geometry import Size
from pathology.pages import page_template

if TYPE_CHECKING:
    from pathology.explain.results.shown import Shown

TEMPLATE = Path(__file__).with_name("templates") / "notebook.html.j2"
SHOWN_PX = 600
DRAWN_DPI = 105
"""About half as many pixels again as are shown: letters stay sharp, and the file small."""
LARGEST_BYTES = 260_000
"""Of the picture; a notebook keeps a third more, as text."""


def explanation_html(shown: "Shown") -> str:
    """A slide's explanation as a fragment of HTML, below 400 kB."""
    return _template().render(
        shown=shown,
        ledger=shown.ledger,
        picture=base64.b64encode(picture_jpeg(shown)).decode("ascii"),
        width=SHOWN_PX,
    )


def ledger_html(ledger: Ledger) -> str:
    """A ledger as a fragment of HTML."""
    return _template().render(shown=None, ledger=ledger)


def picture_jpeg(shown: "Shown") -> bytes:
    """The overlay with its scales as a JPEG; without a view of the slide, the map on white."""
    slide_map, view = shown.overview(1024), shown.view
    layer = heat_layer(slide_map)
    if view is None:
        box = layer.box
        size, thumbnail = Size(box.right, box.bottom), np.full((8, 8, 3), 255, np.uint8)
    else:
        size, thumbnail = view.size, view.thumbnail
    with style.context(STYLE):
        figure = overlay_figure(
            thumbnail, layer, size, shown.slide_id, shown.target, shown.ledger.score, titled=False
        )
        figure.set_dpi(DRAWN_DPI)
        canvas = FigureCanvasAgg(figure)
        # Colours at full resolution: where the heat lies is the point of the picture.
        for quality in (88, 75, 60, 45, 30):
            buffer = io.BytesIO()
            canvas.print_jpg(buffer, pil_kwargs={"quality": quality, "subsampling": 0})
            if buffer.tell() <= LARGEST_BYTES:
                break
    return buffer.getvalue()


@cache
def _template() -> jinja2.Template:
    return page_template(TEMPLATE, {"signed": signed})
