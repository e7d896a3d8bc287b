// What tools draw over panes: outlines, lines, dots and pictures, given in level-0 pixels of a slide.
//
// Shapes are kept in micrometres about an origin of their own, so that a far corner of a large slide
// is as sharp as a near one; moving the view only changes their transforms.

import { drawing } from "../base/dom.js";
import { isPlaced } from "../base/shown.js";

const ARM_UM = 1000;
const LABEL_PX = 18; // from the top of the pane

/** The matrix [a, b, c, d] from micrometres to CSS pixels of a pane. */
export function frameOf(pane) {
  const [o, x, y] = [
    pane.toScreen(0, 0),
    pane.toScreen(ARM_UM, 0),
    pane.toScreen(0, ARM_UM),
  ];
  return [
    (x.x - o.x) / ARM_UM, (x.y - o.y) / ARM_UM,
    (y.x - o.x) / ARM_UM, (y.y - o.y) / ARM_UM,
  ];
}

/** The SVG path of lines through points, in micrometres from `origin`. */
function pathOf(lines, mpp, origin, close) {
  const number = (value) => value.toFixed(2);
  const point = ([x, y]) =>
    `${number((x - origin[0]) * mpp[0])} ${number((y - origin[1]) * mpp[1])}`;
  return lines.map((line) => `M${line.map(point).join("L")}${close ? "Z" : ""}`).join("");
}

/** The box `[left, top, right, bottom]` of points. */
export function boundsOf(points) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    box[0] = Math.min(box[0], x);
    box[1] = Math.min(box[1], y);
    box[2] = Math.max(box[2], x);
    box[3] = Math.max(box[3], y);
  }
  return box;
}

/** Whether a ring lies wholly beside a slide that a pane shows. @param {object} app @param {number[][]} ring @param {string} slide its id */
export function isOutside(app, ring, slide) {
  const size = app.panes.list().find((pane) => pane.slide?.id === slide)?.slide.size;
  if (!size) return false;
  const [left, top, right, bottom] = boundsOf(ring);
  return right <= 0 || bottom <= 0 || left >= size[0] || top >= size[1];
}

/** Where a label stands: over its shape, or at the top of the pane where the shape goes beyond that. */
export function labelPlace([left, top, right, bottom]) {
  const isCut = top < LABEL_PX && bottom > LABEL_PX;
  return { x: (left + right) / 2, y: isCut ? LABEL_PX : top - 6 };
}

function build(item, mpp) {
  const lines = item.lines ?? [];
  const points = lines.flat();
  const bounds = item.box ?? boundsOf(points);
  const origin = [bounds[0], bounds[1]];
  const placed = { origin, nodes: [], dots: [], label: null };
  if (item.picture) {
    placed.nodes.push(
      drawing("image", {
        class: item.className, href: item.picture, preserveAspectRatio: "none", opacity: item.opacity ?? 1,
        width: (bounds[2] - bounds[0]) * mpp[0], height: (bounds[3] - bounds[1]) * mpp[1],
      }),
    );
  } else if (lines.length) {
    const d = pathOf(lines, mpp, origin, !item.open);
    // A light line under a dark one: seen on any tissue, in any colour.
    if (!item.open) placed.nodes.push(drawing("path", { class: "tool-halo", d }));
    const line = drawing("path", { class: item.className, d, "fill-rule": "evenodd" });
    if (item.colour) line.style.stroke = item.colour;
    placed.nodes.push(line);
  }
  for (const at of item.dots ?? [])
    placed.dots.push([at, drawing("circle", { class: "tool-dot", r: 4 })]);
  if (item.label) {
    placed.label = [bounds, drawing("text", { class: "tool-label" })];
    placed.label[1].textContent = item.label;
  }
  return placed;
}

function place(pane, mpp, frame, placed) {
  const screen = ([x, y]) => pane.toScreen(x * mpp[0], y * mpp[1]);
  const corner = screen(placed.origin);
  const matrix = `matrix(${[...frame, corner.x, corner.y].join(" ")})`;
  for (const node of placed.nodes) node.setAttribute("transform", matrix);
  for (const [at, dot] of placed.dots) {
    const { x, y } = screen(at);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
  }
  if (placed.label) {
    const [[left, top, right, bottom], text] = placed.label;
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]].map(screen);
    const { x, y } = labelPlace(boundsOf(corners.map((at) => [at.x, at.y])));
    text.setAttribute("x", x);
    text.setAttribute("y", y);
  }
}

/**
 * Layers of shapes over every pane. `add(shapesOf)` takes a function of a pane that returns what to draw there, `{lines, open, box,
 * picture, opacity, dots, label, className, colour}`, and returns `{refresh, remove}`; `items(pane)` is all that lies over a pane.
 * @param {object} app
 */
export function createOverlay(app) {
  const layers = [];

  function drawLayer(layer) {
    for (const { group } of layer.drawn) group.remove();
    layer.drawn = [];
    for (const pane of app.panes.list()) {
      const mpp = pane.slide?.mpp;
      if (!mpp) continue;
      const items = layer.shapesOf(pane).map((item) => build(item, mpp));
      const group = drawing("g", { class: "tool-shapes", "aria-hidden": "true" });
      for (const { nodes, dots, label } of items)
        group.append(...nodes, ...dots.map(([, dot]) => dot), ...(label ? [label[1]] : []));
      const after = layers.slice(layers.indexOf(layer) + 1).flatMap(({ drawn }) => drawn).find((other) => other.pane === pane);
      pane.svg.insertBefore(group, after?.group ?? null);
      layer.drawn.push({ pane, mpp, items, group });
      follow(layer, pane);
    }
  }

  function follow(layer, moved) {
    if (!isPlaced(app)) return; // "view" follows
    for (const { pane, mpp, items } of layer.drawn) {
      if (pane !== moved || !items.length) continue;
      const frame = frameOf(pane);
      for (const placed of items) place(pane, mpp, frame, placed);
    }
  }

  const offs = [
    app.panes.on("change", () => layers.forEach(drawLayer)),
    app.panes.on("view", ({ pane }) => layers.forEach((layer) => follow(layer, pane))),
  ];
  return {
    add(shapesOf) {
      const layer = { shapesOf, drawn: [] };
      layers.push(layer);
      return {
        refresh: () => drawLayer(layer),
        remove() {
          for (const { group } of layer.drawn) group.remove();
          layers.splice(layers.indexOf(layer), 1);
        },
      };
    },
    items: (pane) => layers.flatMap(({ shapesOf }) => shapesOf(pane)),
    destroy() {
      for (const off of offs) off();
      for (const { group } of layers.flatMap(({ drawn }) => drawn)) group.remove();
      layers.length = 0;
    },
  };
}
