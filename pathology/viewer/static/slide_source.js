// A slide's tiles: for OpenSeadragon, and for figures. All of them come through the page's transport.

import { boxAround, cornersOf, matrixOf } from "./geometry.js";

const AT_ONCE = 6;

/**
 * The pyramid of a slide: square pixels, level 0 the finest, each level half of the one before.
 * @param {object} slide answer of api/slides/ID
 */
function pyramidOf(slide) {
  const finest = Math.min(...slide.mpp);
  // What a division leaves of rounding is no further column of pixels.
  const pixels = (level) => slide.size_um.map((um) => Math.max(1, Math.ceil(Math.round((um * 1e6) / (finest * 2 ** level)) / 1e6)));
  return { finest, pixels, levels: slide.levels, tile: slide.tile_px };
}

const address = (slide, level, x, y) => `api/slides/${slide.id}/tiles/${level}/${x}/${y}.jpg`;

/**
 * What OpenSeadragon opens: a tile source, and the width of the image in micrometres.
 * @param {object} app
 * @param {object} slide answer of api/slides/ID
 * @param {function(Error)} failed
 */
export function openSeadragonImage(app, slide, failed) {
  const { TileSource, Rect } = app.OpenSeadragon;
  const { finest, pixels, levels, tile } = pyramidOf(slide);
  const [width, height] = pixels(0);
  const source = new TileSource({ width, height, tileSize: tile, tileOverlap: 0, minLevel: 0, maxLevel: levels - 1 });
  const levelOf = (its) => levels - 1 - its; // OpenSeadragon counts from the coarsest

  source.getTileUrl = (its, x, y) => address(slide, levelOf(its), x, y);
  source.getTileHashKey = (its, x, y) => address(slide, levelOf(its), x, y);
  // The last tiles of a level hold whole pixels, so they reach a little over the slide's edge: not squeezed to end at it.
  source.getTileBounds = (its, x, y, isSource) => {
    const [w, h] = pixels(levelOf(its));
    const size = [Math.min(tile, w - x * tile), Math.min(tile, h - y * tile)];
    if (isSource) return new Rect(0, 0, ...size);
    const one = 2 ** levelOf(its) / width;
    return new Rect(x * tile * one, y * tile * one, size[0] * one, size[1] * one);
  };
  source.hasTransparency = () => false;
  source.downloadTileStart = (job) => {
    const controller = new AbortController();
    job.userData.controller = controller;
    app.transport.blob(job.src, { signal: controller.signal }).then(
      (blob) => job.finish(blob, null, "rasterBlob"),
      (error) => {
        job.fail(error.message, null);
        if (error.name !== "AbortError") failed(error);
      },
    );
  };
  source.downloadTileAbort = (job) => job.userData.controller?.abort();
  return { tileSource: source, x: 0, y: 0, width: width * finest };
}

/**
 * Draw a slide as a view shows it, from tiles at least as fine as the pixels drawn, and wait for them.
 * @param {object} app
 * @param {object} slide
 * @param {CanvasRenderingContext2D} ctx
 * @param {object} view of `width` x `height` pixels of ctx
 */
export async function drawSlide(app, slide, ctx, view, width, height) {
  const { finest, pixels, levels, tile } = pyramidOf(slide);
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
  async function worker() {
    for (let next = wanted.pop(); next !== undefined; next = wanted.pop()) {
      const image = await createImageBitmap(await app.transport.blob(address(slide, level, ...next)));
      const [left, top] = next.map((n) => n * side);
      ctx.save();
      ctx.transform(a * one, b * one, c * one, d * one, a * left + c * top + e, b * left + d * top + f);
      ctx.drawImage(image, 0, 0);
      ctx.restore();
      image.close();
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
