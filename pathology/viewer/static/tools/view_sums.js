// What the view holds of each explanation: asked when the view rests, and never shown beside another view as if it were its own.

import { createLatest } from "../base/latest.js";
import { activePane, isPlaced } from "../base/shown.js";

const REST_MS = 250;

/** The part of the slide that the active pane shows, as a polygon in level-0 pixels; turned views are turned rectangles. */
export function viewPolygon(app) {
  const pane = activePane(app);
  if (!pane?.slide || !isPlaced(app)) return null;
  const { width, height } = pane.svg.getBoundingClientRect();
  if (!width || !height) return null;
  const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => {
    const { x_um: across, y_um: down } = pane.toSlide(x, y);
    return [Number((across / pane.slide.mpp[0]).toFixed(2)), Number((down / pane.slide.mpp[1]).toFixed(2))];
  });
  if (!corners.flat().every(Number.isFinite)) return null;
  return [...corners, corners[0]];
}

/**
 * `of(evidence)` is `{answer, state}` with state "ready", "pending" (the answer is of an earlier view), "waiting" or an Error.
 * @param {object} app
 * @param {function(): string[]} wanted ids of explanations to ask of, none while nobody looks
 * @param {function()} tell called when something changed
 */
export function createViewSums(app, wanted, tell) {
  const answers = new Map();
  let asked = null;
  let asking = new Set();
  const latest = createLatest(REST_MS, (error) => {
    asking = new Set();
    for (const id of wanted()) answers.set(id, { key: asked, answer: error });
    tell();
  });
  const keyOf = (polygon) => JSON.stringify(polygon);

  function look() {
    const ids = wanted();
    const polygon = viewPolygon(app);
    if (!ids.length || !polygon) {
      asking = new Set();
      return latest.stop();
    }
    const key = keyOf(polygon);
    const isNew = key !== asked;
    asked = key;
    const isKnown = ids.every((id) => answers.get(id)?.key === key);
    if (isKnown) {
      asking = new Set();
      latest.stop();
    } else if (!isNew && ids.every((id) => asking.has(id))) return; // drawn again, not moved
    if (isNew) tell();
    if (isKnown) return;
    asking = new Set(ids);
    latest.ask(async (signal) => {
      const body = { regions: [{ id: "view", name: "view", polygons: [[polygon]] }] };
      await Promise.all(
        ids.map(async (id) => {
          const told = await app.transport.json(`api/evidence/${id}/regions`, { method: "POST", body, signal });
          if (asked === key) answers.set(id, { key, answer: told.regions[0] });
        }),
      );
      asking = new Set();
      if (!signal.aborted) tell();
    });
  }

  return {
    look,
    of(id) {
      const kept = answers.get(id);
      if (!kept) return { state: "waiting", answer: null };
      if (kept.answer instanceof Error) return { state: kept.key === asked ? kept.answer : "waiting", answer: null };
      return { state: kept.key === asked ? "ready" : "pending", answer: kept.answer };
    },
    /** Ask again what could not be answered. */
    retry() {
      for (const [id, { answer }] of answers) if (answer instanceof Error) answers.delete(id);
      look();
    },
    destroy: latest.stop,
  };
}
