// How few tiles carry how much: the cumulative curve, with its axes.

import { drawing, element } from "../base/dom.js";
import { count, percent } from "../base/numbers.js";

const SIZE = { width: 320, height: 170, left: 44, right: 10, top: 10, bottom: 34 };

function ticksOf(largest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(largest, 1)));
  const step = Math.max(1, [power / 5, power / 2, power, 2 * power].find((width) => largest / width <= 5) ?? power);
  const ticks = [];
  for (let at = 0; at <= largest; at += step) ticks.push(at);
  return ticks;
}

/**
 * The curve as a figure with a sentence.
 * @param {{counts: number[], shares: number[]}} curve tiles taken, strongest first, and the share that they carry
 * @param {{tiles: number, share: number, of: number}} statement
 * @param {string} what of which evidence: "for", "against" or "cancelling"
 */
export function curveFigure(curve, statement, what) {
  const { width, height, left, right, top, bottom } = SIZE;
  const most = Math.max(...curve.counts, 1);
  const x = (tiles) => left + (tiles / most) * (width - left - right);
  const y = (share) => height - bottom - Math.min(Math.max(share, 0), 1) * (height - top - bottom);
  const text = (attributes, words) => {
    const made = drawing("text", attributes);
    made.textContent = words;
    return made;
  };
  const points = curve.counts.map((tiles, i) => `${x(tiles).toFixed(1)},${y(curve.shares[i]).toFixed(1)}`);
  const sentence = sentenceOf(statement, what);
  const svg = drawing(
    "svg", { class: "curve", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Cumulative curve. ${sentence}` },
    ...[0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
      drawing("line", { class: "curve-grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }),
      text({ class: "curve-tick", x: left - 5, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`),
    ]),
    ...ticksOf(most).flatMap((tiles) => [
      drawing("line", { class: "curve-grid", x1: x(tiles), x2: x(tiles), y1: height - bottom, y2: height - bottom + 4 }),
      text({ class: "curve-tick", x: x(tiles), y: height - bottom + 15, "text-anchor": "middle" }, count(tiles)),
    ]),
    text({ class: "curve-label", x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "tiles, the strongest first"),
    drawing("polyline", { class: "curve-line", points: points.join(" ") }),
    ...(statement
      ? [
          drawing("path", { class: "curve-mark", d: `M${x(statement.tiles)} ${height - bottom}V${y(statement.share)}H${left}` }),
          drawing("circle", { class: "curve-dot", cx: x(statement.tiles), cy: y(statement.share), r: 4 }),
        ]
      : []),
  );
  return element("figure", { class: "curve-figure" }, svg, element("figcaption", { text: sentence }));
}

/** "37 of 2,310 tiles carry 80 % of the evidence for the target." */
function sentenceOf(statement, what) {
  const evidence = { for: "evidence for the target", against: "evidence against the target", cancelling: "evidence that cancels within tiles" }[what];
  if (!statement) return `There is no ${evidence}.`;
  const { tiles, share, of } = statement;
  const verb = tiles === 1 ? "carries" : "carry";
  return `${count(tiles)} of ${count(of)} tiles ${verb} ${percent(share).replace(".0", "")} of the ${evidence}.`;
}
