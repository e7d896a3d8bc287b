// A slide's tiles: for OpenSeadragon, and for figures.

import { boxAround, cornersOf, matrixOf } from "./geometry.js";

const AT_ONCE = 6;
const EDGE = 2; // pixels by which a tile is drawn under its neighbours to the right and below, so that no seam shines through

/**
 * The pyramid of a slide: square pixels, level 0 the finest, each level half of the one before.
 * @param {object} slide answer of api/slides/ID
 */
function pyramidOf(slide) {
  const finest = Math.min(...slide.mpp);
  // What a division leaves of rounding is no further column of pixels.
  const pixels = (level) => slide.size_um.map((um) => Math.max(1, Math.ceil(Math.round((um * 1e6) / (finest * 2 ** level)) / 1e6)));
  const tile = slide.tile_px;
  /** Width and height of a tile, and how much is added to either. */
  const tileSize = (level, ...at) => {
    const sizes = pixels(level).map((all, axis) => Math.min(tile, all - at[axis] * tile));
    return { sizes, extra: pixels(level).map((all, axis) => ((at[axis] + 1) * tile < all ? EDGE : 0)) };
  };
  return { finest, pixels, levels: slide.levels, tile, tileSize };
}

/** A tile as a canvas, its last column and row repeated. @param {Blob} blob @param {number[]} extra @returns {Promise<object>} context */
async function extended(blob, [right, below]) {
  const image = await createImageBitmap(blob);
  const { width, height } = image;
  const canvas = document.createElement("canvas");
  canvas.width = width + right;
  canvas.height = height + below;
  const ctx = canvas.getContext("2d");
  ctx.drawImage(image, 0, 0);
  if (right > 0) ctx.drawImage(image, width - 1, 0, 1, height, width, 0, right, height);
  if (below > 0) ctx.drawImage(image, 0, height - 1, width, 1, 0, height, width, below);
  if (right > 0 && below > 0) ctx.drawImage(image, width - 1, height - 1, 1, 1, width, height, right, below);
  image.close();
  return ctx;
}

const address = (slide, level, x, y) => `api/slides/${slide.id}/tiles/${level}/${x}/${y}.jpg`;

/**
 * What OpenSeadragon opens (`image`: a tile source, and its width in micrometres), and what ends its requests (`stop`).
 * @param {object} OpenSeadragon
 * @param {object} slide answer of api/slides/ID
 * @param {function(string, AbortSignal): Promise<Blob>} blob asks for a tile
 * @param {function(Error)} failed
 */
export function openSeadragonImage(OpenSeadragon, slide, blob, failed) {
  const { TileSource, Rect } = OpenSeadragon;
  const { finest, pixels, levels, tile, tileSize } = pyramidOf(slide);
  const [width, height] = pixels(0);
  // An overlap keeps OpenSeadragon from stretching every tile by a pixel against seams.
  const source = new TileSource({ width, height, tileSize: tile, tileOverlap: EDGE, minLevel: 0, maxLevel: levels - 1 });
  const levelOf = (its) => levels - 1 - its; // OpenSeadragon counts from the coarsest

  source.getTileUrl = (its, x, y) => address(slide, levelOf(its), x, y);
  source.getTileHashKey = (its, x, y) => address(slide, levelOf(its), x, y);
  // The last tiles of a level hold whole pixels, so they reach a little over the slide's edge: not squeezed to end at it.
  source.getTileBounds = (its, x, y, isSource) => {
    const { sizes, extra } = tileSize(levelOf(its), x, y);
    const size = sizes.map((px, axis) => px + extra[axis]);
    if (isSource) return new Rect(0, 0, ...size);
    const one = 2 ** levelOf(its) / width;
    return new Rect(x * tile * one, y * tile * one, size[0] * one, size[1] * one);
  };
  source.hasTransparency = () => false;
  const underway = new Map(); // job -> AbortController
  source.downloadTileStart = (job) => {
    const controller = new AbortController();
    underway.set(job, controller);
    void fetchTile(job, controller.signal).finally(() => underway.delete(job));
  };
  async function fetchTile(job, signal) {
    const { level, x, y } = job.tile;
    try {
      const picture = await blob(job.src, signal);
      job.finish(await extended(picture, tileSize(levelOf(level), x, y).extra), null, "context2d");
    } catch (error) {
      if (signal.aborted) return;
      job.fail(error.message, null);
      failed(error);
    }
  }
  source.downloadTileAbort = (job) => underway.get(job)?.abort();

  /** Give up what is under way, to be called before the image is closed: OpenSeadragon complains of what comes later. */
  function stop() {
    for (const [job, controller] of underway) {
      clearTimeout(job.jobId);
      job.jobId = null; // a job without one does not tell that it ended
      controller.abort();
    }
  }
  return { image: { tileSource: source, x: 0, y: 0, width: width * finest }, stop };
}

/**
 * Draw a slide as a view shows it, from tiles at least as fine as the pixels drawn, and wait for them.
 * @param {object} slide
 * @param {function(string): Promise<Blob>} blob asks for a tile
 * @param {CanvasRenderingContext2D} ctx
 * @param {object} view of `width` x `height` pixels of ctx
 */
export async function drawSlide(slide, blob, ctx, view, width, height) {
  const { finest, pixels, levels, tile, tileSize } = pyramidOf(slide);
  const level = Math.min(levels - 1, Math.max(0, Math.floor(Math.log2(view.scale / finest) + 1e-9)));
  const side = finest * 2 ** level * tile;
  const [x, y, w, h] = boxAround(cornersOf(view, width, height));
  const [columns, rows] = pixels(level).map((n) => Math.ceil(n / tile));
  const wanted = [];
  for (let row = Math.max(0, Math.floor(y / side)); row < Math.min(rows, (y + h) / side); row++)
    for (let column = Math.max(0, Math.floor(x / side)); column < Math.min(columns, (x + w) / side); column++)
      wanted.push([column, row]);
  const [a, b, c, d, e, f] = matrixOf(view, width, height);
  const one = finest * 2 ** level;
  const fetched = async (at) => extended(await blob(address(slide, level, ...at)), tileSize(level, ...at).extra);
  // In order, so that what a tile lays under its neighbours does not lie over them.
  for (let first = 0; first < wanted.length; first += AT_ONCE) {
    const places = wanted.slice(first, first + AT_ONCE);
    const tiles = await Promise.all(places.map(fetched));
    tiles.forEach(({ canvas }, i) => {
      const [left, top] = places[i].map((n) => n * side);
      ctx.save();
      ctx.transform(a * one, b * one, c * one, d * one, a * left + c * top + e, b * left + d * top + f);
      ctx.drawImage(canvas, 0, 0);
      ctx.restore();
    });
  }
}
