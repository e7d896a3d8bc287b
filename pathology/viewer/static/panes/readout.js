// The value under the cursor: at once from the tile that is drawn, with its rounding; after a rest, the stored number itself.

import { element } from "../base/dom.js";
import { createLatest } from "../base/latest.js";
import { signedNumber } from "./legend.js";
import { plain } from "../base/numbers.js";
import { shownLength } from "./scale_bar.js";

const REST_MS = 150;

/**
 * @param {object} app
 * @param {object} pane `slide`, `evidence`, `heat`, `view()`
 */
export function createReadout(app, pane) {
  const place = element("span", { class: "readout-place" });
  const value = element("span", { class: "readout-value" });
  const exact = element("span", { class: "readout-exact" });
  const its = element("div", { class: "readout", hidden: true }, value, exact, place);
  const latest = createLatest(REST_MS, (error) => {
    if (error.name !== "AbortError") exact.textContent = error.message;
  });

  const number = (map, given, digits) => (map.signed ? signedNumber(given, digits) : plain(given, digits));

  function placeText(at) {
    const [mx, my] = pane.slide.mpp;
    const um = `${plain(at.x_um, 4)}, ${plain(at.y_um, 4)} µm`;
    return `${um} · px ${Math.floor(at.x_um / mx)}, ${Math.floor(at.y_um / my)}`;
  }

  function quickText(at) {
    const map = pane.heat.map();
    if (map === null) return "";
    const found = pane.heat.valueAt(at.x_um, at.y_um, pane.devicePixel());
    if (found === null) return "…";
    if (found.value === null) return "nothing placed here";
    const mean = found.level > 0 ? ` (mean of ${shownLength(found.pixel[0])})` : "";
    return `${number(map, found.value, 3)} ± ${plain(found.step / 2, 1)} ${map.unit}${mean}`;
  }

  function isInside(at) {
    const [width, height] = pane.slide.size_um;
    return at.x_um >= 0 && at.y_um >= 0 && at.x_um < width && at.y_um < height;
  }

  async function stored(at, signal) {
    const [mx, my] = pane.slide.mpp;
    const id = pane.evidence.id;
    return app.transport.json(`api/evidence/${id}/at?x=${at.x_um / mx}&y=${at.y_um / my}`, { signal });
  }

  function exactText(told) {
    const map = pane.heat.map();
    const parts = [];
    const found = told.maps?.[map?.name];
    if (map !== null && typeof found === "number") parts.push(`stored ${number(map, found, 5)}`);
    const tiles = told.tiles ?? [];
    if (tiles.length > 0) parts.push(`${tiles.length > 1 ? "tiles" : "tile"} ${tiles.map((tile) => tile.index).join(", ")}`);
    return parts.join(" · ");
  }

  /** Show what is at a place (um), or nothing. */
  function show(at) {
    latest.stop();
    its.hidden = at === null || pane.slide === null || !isInside(at);
    if (its.hidden) return;
    place.textContent = placeText(at);
    value.textContent = quickText(at);
    exact.textContent = "";
    if (pane.evidence === null) return;
    latest.ask(async (signal) => {
      const told = await stored(at, signal);
      value.textContent = quickText(at); // its tile may have come since
      exact.textContent = exactText(told);
    });
  }

  /** What is at a place, in words, for those who listen. @returns {Promise<string>} */
  async function read(at) {
    show(at);
    if (pane.slide === null) return "no slide";
    if (!isInside(at)) return "beyond the slide";
    const parts = [placeText(at)];
    if (pane.evidence !== null && pane.heat.map() !== null) {
      const map = pane.heat.map();
      const told = await stored(at, new AbortController().signal);
      const found = told.maps?.[map.name];
      parts.unshift(typeof found === "number" ? `${number(map, found, 4)} ${map.unit}` : "nothing placed here");
      const tiles = told.tiles ?? [];
      if (tiles.length > 0) parts.push(`tile ${tiles.map((tile) => tile.index).join(", ")}`);
    }
    return parts.join(", ");
  }

  return { element: its, show, read, destroy: () => latest.stop() };
}
