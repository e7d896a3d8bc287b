"""HTML pages that stand by themselves: escaped, nothing from outside, a policy that says so."""

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image


def page_template(
    path: Path, filters: Mapping[str, Callable[..., str]] | None = None
) -> jinja2.Template:
    """A Jinja template in which every value is escaped, and one that is missing is an error.

    Args:
        path: the template.
        filters: further filters by name; ``sha256`` is there always, for the page's policy.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sha256": _sha256, **(filters or {})}
    return environment.get_template(path.name)


def image_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as a ``data:`` address.

    Args:
        image: what is shown.
        kind: ``"png"`` or ``"jpeg"``.
        options: of Pillow's writer.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _sha256(text: str) -> str:
    """The hash by which a content security policy names an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
