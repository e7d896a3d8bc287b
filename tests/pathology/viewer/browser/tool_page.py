"""The page of a viewer with words for what a person does there; and what should come of it."""

import json
import re
import time

import numpy as np
import shapely
import tifffile

CASE = "case_1"
SIZE, MPP = (1003, 771), (0.5, 0.41)


def group_sum(name):
    """Asks for the sum of a group of regions, when it is there."""
    cell = f"document.querySelector('[data-group=\"{name}\"] .ledger-number')"
    return f"app => {cell}?.textContent.replace('…', '')"


class Viewer:
    """The page of a viewer, and short words for what tests do with it."""

    def __init__(self, page, served):
        self.page, self.library = page, served.library
        page.goto(served.url)
        self.until("app => app.panes && app.library")

    def ask(self, function, *arguments):
        return self.page.evaluate(
            f"([...given]) => ({function})(document.body.viewer, ...given)", [*arguments]
        )

    def until(self, function, *arguments, seconds=10):
        """Wait until something is true; the page's policy forbids Playwright's own way."""
        app = "document.body.viewer"
        script = f"([...given]) => {app} && ({function})({app}, ...given)"
        end = time.monotonic() + seconds
        while not (found := self.page.evaluate(script, [*arguments])):
            if time.monotonic() > end:
                raise TimeoutError(function)
            self.page.wait_for_timeout(20)
        return found

    def entry(self, run="cnn", target="tumour"):
        """An explanation of the case."""
        return next(
            each
            for each in self.library.evidence
            if (each.run.name, each.slide.name, each.target) == (run, CASE, target)
        )

    def open(self, *entries, panel="ledger"):
        """Show the slide with a pane for each of some explanations."""
        slide = entries[0].slide.id
        panes = [
            {
                "slide": slide,
                "evidence": each.id,
                "map": "heatmap",
                "mode": "overlay",
                "opacity": 0.6,
            }
            for each in entries
        ]
        self.ask(
            """(app, slide, panes, panel) => {
                app.openSlide(slide);
                app.store.set({panes, active: 0, panel});
            }""",
            slide, panes, panel,
        )  # fmt: skip
        self.until(
            """(app, ids) => app.panes.list().length === ids.length && app.store.get().view &&
                app.panes.list().every((pane, i) => pane.slide && pane.evidence?.id === ids[i])""",
            [each.id for each in entries],
        )
        self.ask("app => app.panes.list()[0].stage.focus()")

    def screen(self, points, pane=0):
        """Where points of the slide, in level-0 pixels, are on the screen."""
        return self.ask(
            """(app, index, points, [mx, my]) => {
                const pane = app.panes.list()[index];
                const box = pane.svg.getBoundingClientRect();
                return points.map(([x, y]) => {
                    const at = pane.toScreen(x * mx, y * my);
                    return [box.left + at.x, box.top + at.y];
                });
            }""",
            pane, [list(map(float, point)) for point in points], list(MPP),
        )  # fmt: skip

    def draw(self, points, pane=0):
        """Freehand around points."""
        self.ask("app => app.store.set({tool: 'lasso'})")
        (x, y), *others = self.screen([*points, points[0]], pane)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for x, y in others:
            self.page.mouse.move(x, y, steps=3)
        self.page.mouse.up()
        return self.settled()

    def settled(self):
        """The regions, once the server's geometry is in their place."""
        return self.until(
            """app => {
                const {regions} = app.store.get();
                const isDone = (one) => one.settled || one.kind !== 'lasso';
                return regions.length && regions.every(isDone) ? regions : null;
            }"""
        )

    def cell(self, row, column, table=0):
        """A number of a ledger table, as it is shown, once it is."""
        return self.until(
            """(app, row, column, table) => {
                const its = document.querySelectorAll('.ledger-tables table')[table];
                const line = its?.querySelector(`tr[data-row="${row}"]`)?.children[column];
                return line && !line.getAttribute('aria-busy') ? line.textContent || ' ' : null;
            }""",
            row, column, table,
        )  # fmt: skip

    def copied(self, command):
        """What a command copies."""
        self.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.ask("(app) => navigator.clipboard.writeText('')")
        self.ask("(app, id) => app.commands.run(id)", command)
        self.until("async app => (await navigator.clipboard.readText()) !== ''")
        text = self.ask("app => navigator.clipboard.readText()")
        return [line.split("\t") for line in text.replace("\r\n", "\n").split("\n")]


def number(text):
    """What a number on the screen says."""
    return float(re.match(r"[+\-\d.e]+", text.replace("\u2212", "-").replace(",", "")).group())


def record_of(entry):
    return json.loads((entry.folder / "explanation.json").read_text())


def geometry_of(polygons):
    return shapely.union_all([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])


def brute_sum(entry, geometry):
    """What of the map lies inside: every pixel's value times the share of its area."""
    with tifffile.TiffFile(entry.folder / "heatmap.ome.tif") as file:
        values = file.series[0].levels[0].asarray().astype(np.float64)
    x_px, y_px = (1.3 / mpp for mpp in MPP)  # the fixture's pixels of 1.3 um
    rows, columns = np.nonzero(np.nan_to_num(values))
    boxes = shapely.box(columns * x_px, rows * y_px, (columns + 1) * x_px, (rows + 1) * y_px)
    return float((values[rows, columns] * areas_inside(boxes, geometry)).sum() / (x_px * y_px))


def areas_inside(boxes, geometry):
    """How much of each box lies in a geometry; shapely cuts those that its outline crosses."""
    shapely.prepare(geometry)
    areas = np.where(shapely.contains_properly(geometry, boxes), shapely.area(boxes), 0.0)
    is_cut = (areas == 0) & shapely.intersects(geometry, boxes)
    areas[is_cut] = shapely.area(shapely.intersection(boxes[is_cut], geometry))
    return areas
