"""An explanation as a notebook shows it: each image's map in colours of one scale, and its sum."""

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bcos_vit.render import diverging, symmetric_limit

if TYPE_CHECKING:
    from bcos_vit.explain.explanation import Explanation

MOST = 8
"""Images of a batch that are shown."""
SIDE_PX = 150


def explanation_html(explanation: "Explanation") -> str:
    """A fragment of HTML without script or style sheet, of at most ``MOST`` images."""
    single = explanation.target.ndim == 0
    count = 1 if single else len(explanation)
    shown = [explanation] if single else [explanation[i] for i in range(min(count, MOST))]
    maps = [_array(each.contributions) for each in shown]
    limit = symmetric_limit(np.concatenate([values.ravel() for values in maps]))
    cards = [_card(each, values, limit) for each, values in zip(shown, maps, strict=True)]
    more = f" {count - MOST} more are not shown." if count > MOST else ""
    height, width = maps[0].shape
    return (
        '<div style="font: 13px/1.4 system-ui, sans-serif; color: inherit">'
        f'<div style="display: flex; flex-wrap: wrap; gap: 14px">{"".join(cards)}</div>'
        f"<p>Contributions at depth {html.escape(explanation.depth)}, {height} x {width}: orange"
        f" for the class, blue against, white zero; colours end at {limit:.2g} logits per"
        f" place.{more}</p></div>"
    )


def _card(explanation: "Explanation", values: np.ndarray, limit: float) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(diverging(values, limit))
    # Places of a coarse map would be single pixels; none is made smaller than it is.
    scale = max(1, SIDE_PX // max(values.shape))
    picture = picture.resize(
        (values.shape[1] * scale, values.shape[0] * scale), Image.Resampling.NEAREST
    )
    picture.thumbnail((2 * SIDE_PX, 2 * SIDE_PX))
    picture.save(buffer, "png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    terms = {"bias": explanation.bias, **explanation.constants}
    rows = [f"class {int(explanation.target)}: logit {float(explanation.logit):+.4f}"]
    rows += [f"{name} {float(term):+.4f}" for name, term in terms.items()]
    rows += [f"map {float(values.sum()):+.4f}", f"gap {float(explanation.completeness_gap):.1e}"]
    lines = "<br>".join(html.escape(row) for row in rows)
    return (
        f'<div><img style="width: {SIDE_PX}px; image-rendering: pixelated; border: 1px solid'
        f' rgba(127,127,127,.45)" src="data:image/png;base64,{data}" alt="contributions">'
        f"<div>{lines}</div></div>"
    )


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.detach().to("cpu", torch.float64).numpy()
    return array
