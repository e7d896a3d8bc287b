// A tile's map at full resolution, in the colours that all maps have, as a picture to lie over panes.

import { colouring } from "../panes/colours.js";

/**
 * Draw float32 values of `rows` x `columns` into a canvas; how many are beyond the limit.
 * @param {Float32Array} values in logits per mm²
 * @param {number[]} places [rows, columns]
 * @param {object} look as colours.colouring takes it
 * @returns {{canvas: HTMLCanvasElement, clipped: number}} `clipped` as a share
 */
export function pixelCanvas(values, [rows, columns], look) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const ctx = canvas.getContext("2d");
  const image = ctx.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const colour = colouring(look);
  let clipped = 0;
  for (let i = 0; i < pixels.length; i++) {
    const value = values[i];
    pixels[i] = colour(value);
    if (Math.abs(value) > look.limit) clipped += 1;
  }
  ctx.putImageData(image, 0, 0);
  return { canvas, clipped: clipped / pixels.length };
}

/** Little-endian float32 of a transport. @param {ArrayBuffer} buffer */
export function floatsOf(buffer) {
  const view = new DataView(buffer);
  return Float32Array.from({ length: buffer.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}
