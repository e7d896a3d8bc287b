// What colours mean: the bar with its unit, limit, threshold and ends, and how much of the view lies beyond the limit.

import { colouring } from "./colours.js";
import { element } from "../base/dom.js";
import { percent, plain } from "../base/numbers.js";

const WIDTH = 168;
const HEIGHT = 12;
const END = 8; // the pointed ends, in the colours of what is clipped

/** A value with its sign. @param {number} value @returns {string} */
export function signedNumber(value, digits = 3) {
  return `${value > 0 ? "+" : ""}${plain(value, digits)}`;
}

/** A limit for people, without digits that say nothing. */
const short = (value) => plain(value).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");

/** The colour bar of one pane: `show(map, look, opacity)`, and `clipped({pixels, clipped})`. */
export function createLegend() {
  const bar = element("canvas", { class: "legend-bar", role: "img", width: WIDTH, height: HEIGHT });
  const ticks = element("div", { class: "legend-ticks", "aria-hidden": "true" });
  const name = element("span", { class: "legend-name" });
  const share = element("span", { class: "legend-share" });
  const note = element("span", { class: "legend-note" });
  const its = element("div", { class: "legend" }, element("div", {}, bar, ticks), element("div", { class: "legend-words" }, name, share, note));

  function show(map, look, opacity = 1) {
    its.hidden = map === null;
    if (map === null) return;
    const { limit, threshold, sign, signed, smooth } = look;
    const ratio = Math.max(1, globalThis.devicePixelRatio ?? 1);
    bar.width = WIDTH * ratio;
    bar.height = HEIGHT * ratio;
    const ctx = bar.getContext("2d");
    ctx.scale(ratio, ratio);
    drawBar(ctx, look, WIDTH, HEIGHT, opacity);
    bar.title = look.overlay ? `As over white, at ${Math.round(100 * opacity)} %; over tissue, colours mix with the slide's` : "";
    const ends = signed ? [`−${short(limit)}`, "0", `+${short(limit)}`] : ["0", short(limit)];
    ticks.replaceChildren(...ends.map((text) => element("span", { text })));
    name.textContent = `${map.label} · ${map.unit}`;
    const parts = [];
    if (smooth) parts.push("interpolated");
    if (signed && sign !== "both") parts.push(`only ${sign}`);
    if (signed && threshold > 0) parts.push(`from ±${short(threshold)}`);
    note.textContent = parts.join(" · ");
    const range = signed ? `from ${ends[0]} to ${ends[2]}` : `from 0 to ${ends[1]}`;
    bar.setAttribute("aria-label", [`Colours of ${map.label}: ${range} ${map.unit}`, ...parts].join(", "));
  }

  function clipped({ pixels, clipped: beyond }) {
    share.textContent = pixels === 0 ? "" : beyond === 0 ? "none clipped" : `${percent(beyond / pixels)} clipped`;
    share.title = "Of the map's pixels in view, how many are beyond the limit";
    share.dataset.clipped = String(beyond > 0);
  }

  return { element: its, show, clipped };
}

/**
 * Draw a colour bar, with the ends that stand for clipped values and marks at the threshold.
 * @param {CanvasRenderingContext2D} ctx
 * @param {object} look see colours.colouring
 * @param {number} opacity of the heat over a slide, which is white here
 */
export function drawBar(ctx, look, width, height, opacity = 1) {
  const colour = colouring(look);
  const { limit, threshold, signed } = look;
  const inner = [signed ? END : 0, width - END];
  const valueAt = (x) => {
    const t = Math.min(1, Math.max(0, (x - inner[0]) / (inner[1] - inner[0])));
    return signed ? limit * (2 * t - 1) : limit * t;
  };
  /** The bar's colours, one for each of the canvas's own pixels: parts of pixels would let the ground shine through. */
  const strip = (many) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [many, 1];
    const colours = new ImageData(many, 1);
    const pixels = new Uint32Array(colours.data.buffer);
    for (let i = 0; i < many; i++) {
      const x = ((i + 0.5) * width) / many;
      pixels[i] = colour(x < inner[0] ? -2 * limit : x >= inner[1] ? 2 * limit : valueAt(x));
    }
    canvas.getContext("2d").putImageData(colours, 0, 0);
    return canvas;
  };
  ctx.clearRect(0, 0, width, height);
  ctx.save();
  ctx.beginPath();
  ctx.moveTo(0, height / 2);
  if (signed) ctx.lineTo(END, 0);
  else ctx.lineTo(0, 0);
  ctx.lineTo(width - END, 0);
  ctx.lineTo(width, height / 2);
  ctx.lineTo(width - END, height);
  ctx.lineTo(signed ? END : 0, height);
  ctx.closePath();
  ctx.clip();
  ctx.fillStyle = "#ffffff";
  ctx.fillRect(0, 0, width, height);
  ctx.globalAlpha = opacity;
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(strip(Math.round(width * ctx.getTransform().a)), 0, 0, width, height);
  ctx.globalAlpha = 1;
  ctx.fillStyle = "#1c1c1c";
  const marks = signed && threshold > 0 && threshold < limit ? [-threshold, threshold] : [];
  for (const value of marks) {
    const x = inner[0] + ((value / limit + 1) / 2) * (inner[1] - inner[0]);
    ctx.fillRect(x - 0.5, 0, 1, height);
  }
  ctx.restore();
  ctx.strokeStyle = "#767676";
  ctx.lineWidth = 1;
  ctx.stroke();
}
