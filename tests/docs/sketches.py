"""Figures as sketches: for print they would take most of a page's time."""

from pathology.explain.results import figure, write

_write_figure = figure.write_figure


def _sketch(*words, dpi=300):
    return _write_figure(*words, dpi=min(dpi, 40))


def sketch_figures(monkeypatch) -> None:
    """Have explanations write their figures at 40 dots per inch at most."""
    for module in (figure, write):
        monkeypatch.setattr(module, "write_figure", _sketch)
