// The scale bar: a round length, 1, 2 or 5 times a power of ten; and, near enough, the true size of a map's pixel beside it.

import { element } from "../base/dom.js";

const MOST_PX = 140;
const CELL_PX = 5;

/** The longest round length within so many um. @param {number} um @returns {number} */
export function roundLength(um) {
  const power = 10 ** Math.floor(Math.log10(um) + 1e-9);
  return power * ([5, 2].find((step) => step * power <= um * (1 + 1e-9)) ?? 1);
}

/** A length for people: 50 µm, 2 mm, 500 nm. @param {number} um @returns {string} */
export function shownLength(um) {
  const [value, unit] = um >= 1000 ? [um / 1000, "mm"] : um >= 1 ? [um, "µm"] : [um * 1000, "nm"];
  return `${+value.toPrecision(3)} ${unit}`;
}

/** `show(view, cell)`: `cell` is the side of the finest map pixel in um, or null. */
export function createScaleBar() {
  const label = element("span", {});
  const bar = element("div", { class: "scale-line" });
  const square = element("div", { class: "scale-cell" });
  const cellLabel = element("span", {});
  const cellPart = element("div", { class: "scale-part", hidden: true }, square, cellLabel);
  const its = element("div", { class: "scale-bar" }, element("div", { class: "scale-part" }, bar, label), cellPart);

  function show(view, cell) {
    const length = roundLength(MOST_PX * view.scale);
    const text = shownLength(length);
    if (label.textContent !== text) label.textContent = text;
    bar.style.width = `${length / view.scale}px`;
    const side = cell === null ? 0 : cell / view.scale;
    cellPart.hidden = side < CELL_PX || side > 160;
    if (cellPart.hidden) return;
    square.style.width = square.style.height = `${side}px`;
    cellLabel.textContent = `map pixel ${shownLength(cell)}`;
  }
  return { element: its, show };
}
