// Tiles of numbers: int16 counts of a step, kept while there is room, fetched in the order of need, given up when no longer wanted.

import { NODATA } from "./colours.js";

/** Side of a heat tile. */
export const TILE = 256;
const AT_ONCE = 6;
const KEPT = 768; // tiles of 128 KiB
const TRIES = 3;

/**
 * All heat tiles of the page: panes that show the same map share them.
 * @param {object} app
 */
export function createHeatSource(app) {
  const tiles = new Map(); // address -> {values, hasGaps}; in order of last use
  const underway = new Map(); // address -> AbortController
  const troubles = new Map(); // address -> {tries, until}
  const wants = new Map(); // owner -> [address], the most urgent first
  const listeners = new Set();
  let timer = null;

  const address = (map, level, x, y) => `${map.path}/${level}/${x}/${y}`;

  function keep(where, buffer) {
    if (buffer.byteLength !== 2 * TILE * TILE) throw new Error(`a heat tile of ${buffer.byteLength} bytes came, ${where}`);
    const values = new Int16Array(buffer);
    let gaps = 0;
    for (let i = 0; i < values.length; i++) gaps += values[i] === NODATA;
    tiles.set(where, { values, hasGaps: gaps > 0, isEmpty: gaps === values.length });
    for (const old of tiles.keys()) {
      if (tiles.size <= KEPT) break;
      tiles.delete(old);
    }
  }

  async function fetchTile(where) {
    const controller = new AbortController();
    underway.set(where, controller);
    try {
      keep(where, await app.transport.bytes(where, { signal: controller.signal }));
      troubles.delete(where);
    } catch (error) {
      if (!controller.signal.aborted) later(where, error);
    } finally {
      if (underway.get(where) === controller) underway.delete(where);
    }
    pump();
    if (!controller.signal.aborted) for (const listener of listeners) listener(where);
  }

  /** Try again after a while; without end if there is no server, since it may come back. */
  function later(where, error) {
    const tries = (troubles.get(where)?.tries ?? 0) + (error.status === 0 ? 0 : 1);
    const wait = 750 * 4 ** tries;
    troubles.set(where, { tries, until: performance.now() + wait });
    clearTimeout(timer);
    timer = setTimeout(pump, wait);
    if (tries === TRIES) app.fail(error);
  }

  function pump() {
    const wanted = new Set();
    const queues = [...wants.values()];
    const longest = Math.max(0, ...queues.map((queue) => queue.length));
    for (let i = 0; i < longest; i++) for (const queue of queues) if (i < queue.length) wanted.add(queue[i]); // panes in turn
    for (const [where, controller] of underway) {
      if (wanted.has(where)) continue;
      underway.delete(where);
      controller.abort();
    }
    for (const where of wanted) {
      if (underway.size >= AT_ONCE) return;
      const trouble = troubles.get(where);
      if (tiles.has(where) || underway.has(where)) continue;
      if (trouble !== undefined && (trouble.tries >= TRIES || performance.now() < trouble.until)) continue;
      void fetchTile(where);
    }
  }

  return {
    address,
    /** A tile that is here, or null; `{values: Int16Array(65536), hasGaps, isEmpty}`. */
    get(map, level, x, y) {
      const where = address(map, level, x, y);
      const tile = tiles.get(where) ?? null;
      if (tile !== null) {
        tiles.delete(where);
        tiles.set(where, tile);
      }
      return tile;
    },
    /** What an owner wants from now on, `[[map, level, x, y]]`, the most urgent first; what nobody wants any more is given up. */
    want(owner, list) {
      if (list.length > 0) wants.set(owner, list.map((place) => address(...place)));
      else wants.delete(owner);
      pump();
    },
    /** True if a tile could not be had. */
    hasFailed: (map, level, x, y) => (troubles.get(address(map, level, x, y))?.tries ?? 0) >= TRIES,
    /** Hear of tiles that came. @returns {function()} */
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    destroy() {
      clearTimeout(timer);
      wants.clear();
      listeners.clear();
      for (const controller of underway.values()) controller.abort();
      underway.clear();
      tiles.clear();
    },
  };
}

/**
 * A map as the heat layer wants it.
 * @param {string} evidence id
 * @param {object} map one of `maps` of api/evidence/ID
 */
export function heatMap(evidence, map) {
  const [across, down = across] = [map.pixel_um].flat();
  const size = (level) => [map.width, map.height].map((n) => Math.ceil(n / 2 ** level));
  return {
    ...map,
    path: `api/evidence/${evidence}/maps/${map.name}`,
    origin: [map.box_um[0], map.box_um[1]],
    pixel: [across, down],
    size,
    tileCounts: (level) => size(level).map((n) => Math.ceil(n / TILE)),
  };
}
