// Where colours saturate: one limit per kind of map, for all panes, targets, runs and slides.

import { mapOf } from "./names.js";

const NODATA = 32768; // the size of the int16 that stands where nothing was placed

/**
 * The limit of a kind of map, in its unit: as set, else the library's, else the map's own.
 * @param {object} app
 * @param {string} name
 * @param {object} [map] as api/evidence tells it
 * @returns {number}
 */
export function limitOf(app, name, map) {
  return app.store.get().colour.limits[name] ?? app.library.limits[name] ?? map?.limit ?? 1;
}

/**
 * The level of a map that is drawn: the finest whose pixels are no smaller than a device pixel, so that none is skipped, and none can hide.
 * @param {object} map as api/evidence tells it
 * @param {number} devicePixel um
 */
export function levelDrawn(map, devicePixel) {
  const level = Math.ceil(Math.log2(devicePixel / Math.min(...[map.pixel_um].flat())) - 1e-6);
  return Math.min(map.levels - 1, Math.max(0, level));
}

/** The next of 1, 2, 5, 10, 20, … above (by 1) or below (by -1). @param {number} value @param {number} by */
export function stepLimit(value, by) {
  const steps = [1, 2, 5, 10, 20, 50];
  const power = 10 ** Math.floor(Math.log10(value) - (by < 0 ? 1 : 0));
  const near = 1 + 1e-9;
  const found = by > 0
    ? steps.find((step) => step * power > value * near)
    : steps.findLast((step) => step * power < value / near);
  return Number((found * power).toPrecision(1));
}

/** Rounded up to two digits. @param {number} value */
export function roundUp(value) {
  const power = 10 ** (Math.floor(Math.log10(value)) - 1);
  return Number((Math.ceil((value / power) * (1 - 1e-9)) * power).toPrecision(2));
}

const BEYOND = 0.01; // share of the pixels in view that a fitted limit leaves beyond it

/**
 * The size of value that one in a hundred of the map's pixels in view exceeds, at the level that is drawn. The largest of all would
 * be a few pixels' affair, and pale the rest; what is beyond is told by the legend.
 * @param {object} app
 * @param {object} pane of app.panes.list()
 * @returns {Promise<number|null>} null where the pane shows no heat, or none is in view
 */
export async function limitInView(app, pane) {
  const { evidence, map: wanted } = pane.state();
  const map = mapOf(pane.evidence, wanted);
  if (evidence === null || map === null) return null;
  const { width, height } = pane.size;
  const corners = [[0, 0], [width, 0], [0, height], [width, height]].map(([x, y]) => pane.toSlide(x, y));
  const [left, top, boxWidth, boxHeight] = map.box_um;
  const [right, bottom] = [left + boxWidth, top + boxHeight];
  const clip = (values, low, high) => [Math.max(low, Math.min(...values)), Math.min(high, Math.max(...values))];
  const [x0, x1] = clip(corners.map((corner) => corner.x_um), left, right);
  const [y0, y1] = clip(corners.map((corner) => corner.y_um), top, bottom);
  if (x0 >= x1 || y0 >= y1) return null;

  const [px, py] = [].concat(map.pixel_um, map.pixel_um);
  const level = levelDrawn(map, pane.devicePixel());
  const pixels = (um, origin, pixel) => (um - origin) / (pixel * 2 ** level);
  const range = (from, to, origin, pixel) => [Math.floor(pixels(from, origin, pixel)), Math.ceil(pixels(to, origin, pixel)) - 1];
  const [columns, rows] = [range(x0, x1, left, px), range(y0, y1, top, py)];
  const size = map.tile_px;
  const counts = new Uint32Array(NODATA);
  for (let y = Math.floor(rows[0] / size); y <= Math.floor(rows[1] / size); y++) {
    for (let x = Math.floor(columns[0] / size); x <= Math.floor(columns[1] / size); x++) {
      const bytes = await app.transport.bytes(`api/evidence/${evidence}/maps/${map.name}/${level}/${x}/${y}`);
      count(counts, new DataView(bytes), size, [columns, rows], [x * size, y * size]);
    }
  }
  const all = counts.reduce((sum, many) => sum + many, 0);
  let beyond = 0;
  let steps = counts.length - 1;
  while (steps > 0 && (beyond += counts[steps]) <= BEYOND * all) steps -= 1;
  return steps > 0 ? steps * map.step : null;
}

function count(counts, view, size, [columns, rows], [x0, y0]) {
  for (let y = Math.max(0, rows[0] - y0); y <= Math.min(size - 1, rows[1] - y0); y++) {
    for (let x = Math.max(0, columns[0] - x0); x <= Math.min(size - 1, columns[1] - x0); x++) {
      const steps = Math.abs(view.getInt16(2 * (y * size + x), true));
      if (steps < NODATA) counts[steps] += 1;
    }
  }
}
