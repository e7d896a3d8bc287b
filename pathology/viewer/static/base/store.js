// The state of the page in one place. Values are replaced, never changed in place, so that a change is seen by comparing them.

/**
 * @param {object} initial
 * @returns {{get: function(): object, set: function(object), subscribe: function(string[], function(object, Set<string>)): function()}}
 */
export function createStore(initial) {
  let state = Object.freeze({ ...initial });
  const listeners = new Set();

  function set(patch) {
    const changed = new Set(Object.keys(patch).filter((key) => !Object.is(patch[key], state[key])));
    if (changed.size === 0) return;
    state = Object.freeze({ ...state, ...patch });
    for (const listener of [...listeners]) {
      if (!listener.keys.some((key) => changed.has(key))) continue;
      try {
        listener.notify(state, changed);
      } catch (error) {
        reportError(error); // one broken part must not keep the others from hearing
      }
    }
  }

  return {
    /** The state now; frozen. */
    get: () => state,
    /** Replace some of its values; those who listen to one that changed are told at once. */
    set,
    /** Hear of changes of any of these keys, in the order of subscription; returns what ends it. */
    subscribe(keys, notify) {
      const listener = { keys, notify };
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** What colours mean until someone changes it; limits come with the library. */
export const COLOUR = Object.freeze({
  limits: Object.freeze({}),
  threshold: 0,
  sign: "both",
  palette: "blue-brown",
  smooth: false,
  grid: false,
});

/** The state before a slide is open. `view` is null until the panes have shown a slide whole. */
export const INITIAL = Object.freeze({
  page: "list",
  slide: null,
  panes: Object.freeze([]),
  active: 0,
  layout: "grid",
  curtain: 0.5,
  view: null,
  colour: COLOUR,
  theme: "auto",
  regions: Object.freeze([]),
  selected: null,
  tile: null,
  panel: "ledger",
  tool: "pan",
});
