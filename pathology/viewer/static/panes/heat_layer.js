// A map drawn over a pane: coloured here from numbers, placed by its box in micrometres.
//
// The tiles in view are coloured into a mosaic of one canvas pixel per map pixel, and the mosaic is drawn once, turned and scaled. So
// there are no seams between tiles, nearest neighbour means that of the map, and a new colour scale is a new mosaic without a request.

import { levelDrawn } from "../base/limits.js";
import { lookup, NODATA } from "./colours.js";
import { boxAround, cornersOf, matrixOf } from "./geometry.js";
import { TILE } from "./heat_source.js";

/**
 * Draws one map. `map` is a heatMap; `look` what colours.lookup takes, and `smooth`, `overlay`; `bounds` the slide's [width, height] in um.
 * @param {object} source heat source
 */
export function createHeatLayer(source) {
  const colours = document.createElement("canvas");
  const coverage = document.createElement("canvas"); // opaque where something was placed, or is not known yet
  const block = new ImageData(TILE, TILE);
  const pixels = new Uint32Array(block.data.buffer);
  const self = {};
  let map = null;
  let look = null;
  let table = null;
  let mosaic = null; // {level, x, y, columns, rows, held: [depth of what each tile was painted from]}
  let hatch = null;

  function setMap(next) {
    if (map?.path === next?.path) return;
    map = next;
    mosaic = table = null;
    if (map === null) source.want(self, []);
  }

  function setLook(next) {
    if (look !== null && Object.keys(next).every((key) => Object.is(look[key], next[key]))) return;
    look = next;
    table = null;
  }

  /** Tiles of a level that a view touches. */
  function rangeOf(view, width, height, level) {
    const [x, y, w, h] = boxAround(cornersOf(view, width, height));
    const range = [[x, w], [y, h]].map(([from, size], axis) => {
      const side = map.pixel[axis] * 2 ** level * TILE;
      const most = map.tileCounts(level)[axis];
      const first = Math.max(0, Math.floor((from - map.origin[axis]) / side));
      return [first, Math.max(0, Math.min(most, Math.ceil((from + size - map.origin[axis]) / side)) - first)];
    });
    return { level, x: range[0][0], y: range[1][0], columns: range[0][1], rows: range[1][1] };
  }

  /** The tile, or the part of a coarser one that stands for it until it comes. */
  function standIn(level, x, y) {
    for (let depth = 0; level + depth < map.levels; depth++) {
      const tile = source.get(map, level + depth, x >> depth, y >> depth);
      if (tile !== null) return { tile, depth };
    }
    return null;
  }

  function paint(column, row, found) {
    const [left, top] = [column * TILE, row * TILE];
    const ctx = colours.getContext("2d");
    const cover = coverage.getContext("2d");
    if (found === null || !found.tile.hasGaps) cover.fillRect(left, top, TILE, TILE);
    if (found === null || found.tile.isEmpty) {
      ctx.clearRect(left, top, TILE, TILE);
      if (found !== null) cover.clearRect(left, top, TILE, TILE);
      return;
    }
    const { tile, depth } = found;
    const { values } = tile;
    const offset = cornerOf(column, row, depth);
    fill(values, offset, depth, table);
    ctx.putImageData(block, left, top);
    if (!tile.hasGaps) return;
    fill(values, offset, depth, COVERED);
    cover.putImageData(block, left, top);
  }

  /** Where in a coarser tile the place of a tile begins. */
  function cornerOf(column, row, depth) {
    const part = (at) => ((at & ((1 << depth) - 1)) * TILE) >> depth;
    return part(mosaic.y + row) * TILE + part(mosaic.x + column);
  }

  function fill(values, offset, depth, colourOf) {
    if (depth === 0) {
      for (let i = 0; i < pixels.length; i++) pixels[i] = colourOf[values[i] + 32768];
      return;
    }
    let i = 0;
    for (let y = 0; y < TILE; y++) {
      const line = offset + (y >> depth) * TILE;
      for (let x = 0; x < TILE; x++) pixels[i++] = colourOf[values[line + (x >> depth)] + 32768];
    }
  }

  /** Bring the mosaic to what is asked for: all of it if its place or its colours changed, else the tiles that came. */
  function compose(range) {
    const { level, x, y, columns, rows } = range;
    const moved = !mosaic || ["level", "x", "y", "columns", "rows"].some((key) => mosaic[key] !== range[key]);
    if (moved) {
      mosaic = { ...range, held: [] };
      for (const canvas of [colours, coverage]) {
        if (canvas.width !== columns * TILE) canvas.width = columns * TILE;
        if (canvas.height !== rows * TILE) canvas.height = rows * TILE;
      }
    }
    const recoloured = table === null;
    if (recoloured) table = lookup({ ...look, step: map.step });
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++) {
        const found = standIn(level, x + column, y + row);
        const depth = found?.depth ?? null;
        const at = row * columns + column;
        if (!moved && !recoloured && mosaic.held[at] === depth) continue;
        mosaic.held[at] = depth;
        paint(column, row, found);
      }
  }

  /** What is wanted: the coarsest tiles first, which stand in for all others; then those in view from its middle outwards. */
  function request(range, view) {
    const side = map.pixel.map((um) => um * 2 ** range.level * TILE);
    const wanted = [];
    for (let y = range.y; y < range.y + range.rows; y++)
      for (let x = range.x; x < range.x + range.columns; x++) {
        const [dx, dy] = [(x + 0.5) * side[0] + map.origin[0] - view.x, (y + 0.5) * side[1] + map.origin[1] - view.y];
        wanted.push([Math.hypot(dx, dy), x, y]);
      }
    wanted.sort((one, other) => one[0] - other[0]);
    const coarsest = map.levels - 1;
    const [columns, rows] = map.tileCounts(coarsest);
    const base = range.level === coarsest || columns * rows > 4 ? [] : [...Array(columns * rows).keys()];
    source.want(self, [
      ...base.map((i) => [map, coarsest, i % columns, Math.floor(i / columns)]),
      ...wanted.map(([, x, y]) => [map, range.level, x, y]),
    ]);
  }

  /**
   * Draw into a canvas of `width` x `height` CSS pixels, `ratio` device pixels each. Returns true if all of it is as fine as it gets.
   * @param {CanvasRenderingContext2D} ctx
   */
  function draw(ctx, view, width, height, ratio, bounds) {
    ctx.resetTransform();
    ctx.clearRect(0, 0, ctx.canvas.width, ctx.canvas.height);
    if (map === null || look === null || !(width > 0 && height > 0)) return true;
    const level = levelDrawn(map, view.scale / ratio);
    const range = rangeOf(view, width, height, level);
    request(range, view);
    if (range.columns * range.rows > 0) compose(range);
    const [a, b, c, d, e, f] = matrixOf(view, width, height).map((value) => value * ratio);

    ctx.save();
    ctx.setTransform(a, b, c, d, e, f);
    ctx.beginPath();
    ctx.rect(0, 0, ...bounds);
    ctx.clip();
    ctx.resetTransform();
    ctx.fillStyle = hatchOf(ctx, ratio, look.overlay);
    ctx.fillRect(0, 0, ctx.canvas.width, ctx.canvas.height);
    if (range.columns * range.rows > 0) {
      // About the view's centre, not the slide's corner: far from the corner no digits are lost.
      const [mx, my] = map.pixel.map((um) => um * 2 ** level);
      const [dx, dy] = [map.origin[0] + range.x * TILE * mx - view.x, map.origin[1] + range.y * TILE * my - view.y];
      const place = [a * mx, b * mx, c * my, d * my, (width * ratio) / 2 + a * dx + c * dy, (height * ratio) / 2 + b * dx + d * dy];
      ctx.setTransform(...place);
      ctx.imageSmoothingEnabled = look.smooth;
      ctx.imageSmoothingQuality = "high";
      ctx.globalCompositeOperation = "destination-out";
      ctx.drawImage(coverage, 0, 0);
      ctx.globalCompositeOperation = "source-over";
      ctx.drawImage(colours, 0, 0);
    }
    ctx.restore();
    return range.columns * range.rows === 0 || mosaic.held.every((depth) => depth === 0);
  }

  function hatchOf(ctx, ratio, isLight) {
    const key = `${ratio} ${isLight}`;
    if (hatch?.key !== key) hatch = { key, pattern: ctx.createPattern(hatchTile(ratio, isLight), "repeat") };
    return hatch.pattern;
  }

  /** The value drawn at a place, from what is here: `{value, step, pixel (um), isFinest}`, null if unknown, value null if nothing is there. */
  function valueAt(x_um, y_um, devicePixel) {
    if (map === null) return null;
    for (let level = levelDrawn(map, devicePixel); level < map.levels; level++) {
      const [px, py] = [x_um, y_um].map((um, axis) => Math.floor((um - map.origin[axis]) / (map.pixel[axis] * 2 ** level)));
      const [w, h] = map.size(level);
      if (px < 0 || py < 0 || px >= w || py >= h) return { value: null };
      const tile = source.get(map, level, Math.floor(px / TILE), Math.floor(py / TILE));
      if (tile === null) continue;
      const n = tile.values[(py % TILE) * TILE + (px % TILE)];
      return { value: n === NODATA ? null : n * map.step, step: map.step, pixel: map.pixel.map((um) => um * 2 ** level), level };
    }
    return null;
  }

  /** Of the map's pixels in view that hold something: how many, and how many are beyond the limit. */
  function survey(view, width, height) {
    const found = { pixels: 0, clipped: 0 };
    if (map === null || mosaic === null) return found;
    const { level, x, y, columns, rows } = mosaic;
    const limit = look.limit / map.step;
    const [least, most] = [look.sign === "for" ? -Infinity : -limit, look.sign === "against" ? Infinity : limit];
    const [mx, my] = map.pixel.map((um) => um * 2 ** level);
    const corners = cornersOf(view, width, height).map(([px, py]) => [(px - map.origin[0]) / mx, (py - map.origin[1]) / my]);
    const [w, h] = map.size(level);
    const spans = Array.from({ length: Math.max(0, Math.min(h, (y + rows) * TILE) - y * TILE) }, (_, i) => {
      const [from, to] = spanOf(corners, y * TILE + i + 0.5);
      return [Math.ceil(from - 0.5), Math.min(w, Math.floor(to + 0.5))];
    });
    for (let i = 0; i < columns * rows; i++) {
      const [left, top] = [(x + (i % columns)) * TILE, Math.floor(i / columns) * TILE];
      const tile = source.get(map, level, left / TILE, y + top / TILE);
      if (tile === null || tile.isEmpty) continue;
      const { values } = tile;
      for (let row = top; row < Math.min(top + TILE, spans.length); row++) {
        const line = (row - top) * TILE;
        const end = line + Math.min(TILE, spans[row][1] - left);
        for (let at = line + Math.max(0, spans[row][0] - left); at < end; at++) {
          const n = values[at];
          if (n === NODATA) continue;
          found.pixels += 1;
          if (n > most || n < least) found.clipped += 1;
        }
      }
    }
    return found;
  }

  /** True if a tile of what was drawn last cannot be had. */
  function hasFailed() {
    if (map === null || mosaic === null) return false;
    const { level, x, y, columns } = mosaic;
    return mosaic.held.some(
      (depth, i) => depth !== 0 && source.hasFailed(map, level, x + (i % columns), y + Math.floor(i / columns)),
    );
  }

  return { setMap, setLook, draw, valueAt, survey, hasFailed, map: () => map, destroy: () => source.want(self, []) };
}

/** Where a convex outline begins and ends at a height. */
function spanOf(corners, y) {
  const at = [];
  corners.forEach(([x0, y0], i) => {
    const [x1, y1] = corners[(i + 1) % corners.length];
    if (y0 <= y !== y1 <= y) at.push(x0 + ((y - y0) * (x1 - x0)) / (y1 - y0));
  });
  return at.length === 2 ? [Math.min(...at), Math.max(...at)] : [0, -1];
}

const COVERED = new Uint32Array(65536).fill(0xff000000);
COVERED[NODATA + 32768] = 0;

function hatchTile(ratio, isLight) {
  const side = Math.max(4, Math.round(8 * ratio));
  const tile = document.createElement("canvas");
  tile.width = tile.height = side;
  const ctx = tile.getContext("2d");
  if (!isLight) {
    ctx.fillStyle = "#c9c9c9";
    ctx.fillRect(0, 0, side, side);
  }
  ctx.strokeStyle = isLight ? "rgb(90 90 90 / 0.35)" : "#8c8c8c";
  ctx.lineWidth = ratio;
  for (const shift of [-side, 0, side]) {
    ctx.moveTo(shift, side);
    ctx.lineTo(shift + side, 0);
  }
  ctx.stroke();
  return tile;
}
