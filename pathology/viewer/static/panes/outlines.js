// Outlines of an explanation's tiles over a pane.

import { drawing } from "../base/dom.js";
import { boxAround, cornersOf, matrixOf } from "./geometry.js";
import { createLatest } from "../base/latest.js";

const REST_MS = 120;

/** @param {object} app @param {function(boolean)} tellPartial told if there are more tiles than are drawn */
export function createOutlines(app, tellPartial) {
  const path = drawing("path", { "vector-effect": "non-scaling-stroke" });
  const svg = drawing("svg", { class: "pane-outlines", "aria-hidden": "true" }, path);
  const latest = createLatest(REST_MS, (error) => app.fail(error));
  let shown = null; // {evidence, box, origin, whole}

  function clear() {
    latest.stop();
    path.removeAttribute("d");
    shown = null;
    tellPartial(false);
  }

  /** Show the outlines in a view; nothing if evidence is null. */
  function show(evidence, slide, view, width, height) {
    if (evidence === null || slide === null) {
      if (shown !== null) clear();
      return;
    }
    if (shown?.evidence !== evidence) {
      clear();
      shown = { evidence, box: null, origin: [0, 0], whole: false };
    }
    // Kept about an origin near them: SVG holds numbers in single precision.
    const [a, b, c, d, e, f] = matrixOf({ ...view, x: view.x - shown.origin[0], y: view.y - shown.origin[1] }, width, height);
    path.setAttribute("transform", `matrix(${[a, b, c, d, e, f].join(" ")})`);
    const box = boxAround(cornersOf(view, width, height));
    if (!covers(shown, box)) latest.ask((signal) => ask(evidence, slide, box, signal));
  }

  async function ask(evidence, slide, [left, top, wide, high], signal) {
    // Half a view more on each side, so that small moves need no request.
    const box = [left - wide / 2, top - high / 2, 2 * wide, 2 * high];
    const [mx, my] = slide.mpp;
    const query = new URLSearchParams({ x: box[0] / mx, y: box[1] / my, width: box[2] / mx, height: box[3] / my });
    const told = await app.transport.json(`api/evidence/${evidence}/outlines?${query}`, { signal });
    const origin = [left, top];
    path.setAttribute(
      "d",
      told.boxes
        .map(([x, y, w, h]) => `M${x * mx - origin[0]} ${y * my - origin[1]}h${w * mx}v${h * my}h${-w * mx}Z`)
        .join(""),
    );
    shown = { evidence, box, origin, whole: !told.truncated };
    tellPartial(told.truncated);
    again();
  }

  let again = () => {};
  return { element: svg, show, onChange: (run) => (again = run), destroy: clear };
}

function covers({ box, whole }, [x, y, w, h]) {
  if (box === null) return false;
  const isInside = x >= box[0] && y >= box[1] && x + w <= box[0] + box[2] && y + h <= box[1] + box[3];
  // All of a much larger box is more than is wanted when it was cut short: ask again for the part in view.
  return isInside && (whole || w * h * 16 > box[2] * box[3]);
}
