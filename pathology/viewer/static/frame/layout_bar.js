// How many panes there are, and whether they lie beside or over each other.

import { button, drawing, element } from "../base/dom.js";
import { describe } from "../base/names.js";
import { changed, stepped, withCount, withDifference } from "./pane_choices.js";

const LAYOUTS = {
  1: { text: "One pane", boxes: [[1, 1, 14, 10]] },
  2: { text: "Two panes", boxes: [[1, 1, 6.5, 10], [8.5, 1, 6.5, 10]] },
  3: { text: "Three panes", boxes: [[1, 1, 4, 10], [6, 1, 4, 10], [11, 1, 4, 10]] },
  4: { text: "Four panes", boxes: [[1, 1, 6.5, 4.5], [8.5, 1, 6.5, 4.5], [1, 6.5, 6.5, 4.5], [8.5, 6.5, 6.5, 4.5]] },
};

function picture(boxes, extra = []) {
  const shapes = boxes.map(([x, y, width, height]) => drawing("rect", { x, y, width, height, rx: 0.5, fill: "none", stroke: "currentColor" }));
  return drawing("svg", { viewBox: "0 0 16 12", width: 20, height: 15, "aria-hidden": "true", class: "picture" }, ...shapes, ...extra);
}

/** Buttons and keys for layout and panes. @param {object} app */
export function createLayoutBar(app) {
  const { store, commands } = app;

  function setCount(many) {
    const { panes, slide, active, layout } = store.get();
    store.set({
      panes: withCount(app.library, panes, many, slide),
      active: Math.min(active, many - 1),
      layout: many > 1 ? layout : "grid",
    });
    app.announce(LAYOUTS[many].text);
  }
  function toggleCurtain() {
    const { panes, slide, layout } = store.get();
    const isOn = layout !== "curtain";
    // Heat alone is parted from its own slide.
    const needsOther = isOn && panes.length < 2 && (panes[0].evidence === null || panes[0].mode === "slide");
    const next = needsOther ? withCount(app.library, panes, 2, slide) : panes;
    store.set({ panes: next, layout: isOn ? "curtain" : "grid" });
    app.announce(isOn ? "Curtain" : "Panes beside each other");
  }

  const counts = Object.entries(LAYOUTS).map(([many, { text, boxes }]) =>
    element(
      "button",
      { type: "button", title: `${text} (N adds one, Shift+N closes one)`, "aria-label": text, "data-count": many, onclick: () => setCount(Number(many)) },
      picture(boxes),
    ),
  );
  const half = drawing("rect", { x: 1, y: 1, width: 7, height: 10, fill: "currentColor", opacity: 0.45 });
  const line = drawing("line", { x1: 8, x2: 8, y1: 0, y2: 12, stroke: "currentColor" });
  const curtain = element(
    "button",
    { type: "button", title: "Curtain: panes over each other, parted by a line (X)", "aria-label": "Curtain", onclick: toggleCurtain },
    picture([[1, 1, 14, 10]], [half, line]),
  );
  const difference = button("Difference", () => showDifference(), {
    title: "The difference of two explanations that are shown, in a pane of its own (Shift+B)",
  });
  const layouts = element("span", { class: "segments layouts", role: "group", "aria-label": "Layout" }, ...counts, curtain);
  const bar = element("span", { class: "layout-bar" }, layouts, difference);

  function showDifference() {
    const { panes } = store.get();
    const next = withDifference(app.library, panes);
    if (next === null) return app.announce("There are no two explanations whose difference is not shown.");
    app.focusPane();
    store.set({ panes: next, active: next.length - 1, layout: "grid" });
    app.announce(`Difference: ${describe(app.library, next.at(-1).evidence).title}`);
  }

  function show() {
    const { panes, layout } = store.get();
    for (const one of counts) one.setAttribute("aria-pressed", String(Number(one.dataset.count) === panes.length));
    curtain.setAttribute("aria-pressed", String(layout === "curtain"));
    difference.disabled = withDifference(app.library, panes) === null;
  }

  const group = "Panes";
  const add = (id, key, label, run) => commands.add({ id, key, label, group, run });
  const own = () => store.get().panes[store.get().active];
  const change = (patch) => store.set({ panes: changed(store.get().panes, store.get().active, patch) });
  const activate = (by) => {
    const { panes, active } = store.get();
    const next = (active + by + panes.length) % panes.length;
    app.focusPane();
    store.set({ active: next });
    app.announce(`Pane ${next + 1}`);
  };
  const step = (by) => store.set({ panes: changed(store.get().panes, store.get().active, stepped(app.library, own(), by)) });
  const fade = (by) => {
    if (own().evidence === null) return;
    change({ mode: "overlay", opacity: Math.round(100 * Math.min(1, Math.max(0, own().opacity + by))) / 100 });
    app.announce(`Opacity ${Math.round(100 * own().opacity)} per cent`);
  };
  const ends = [
    add("pane-more", "n", "One more pane", () => store.get().panes.length < 4 && setCount(store.get().panes.length + 1)),
    add("pane-close", "Shift+N", "Close the active pane", () => {
      const { panes, active } = store.get();
      if (panes.length < 2) return;
      const left = panes.filter((_, at) => at !== active);
      app.focusPane();
      store.set({ panes: left, active: Math.min(active, left.length - 1), layout: left.length > 1 ? store.get().layout : "grid" });
      app.announce(LAYOUTS[left.length].text);
    }),
    add("pane-next", ".", "The next pane is the active one", () => activate(1)),
    add("pane-previous", ",", "The pane before is the active one", () => activate(-1)),
    add("difference", "Shift+B", "The difference of two explanations that are shown", showDifference),
    add("curtain", "x", "Curtain, or panes beside each other", toggleCurtain),
    add("evidence-next", "e", "Active pane: next explanation", () => step(1)),
    add("evidence-previous", "Shift+E", "Active pane: explanation before", () => step(-1)),
    add("map-next", "k", "Active pane: next map", () => {
      const pane = app.panes.list().find((one) => one.index === store.get().active);
      const names = pane?.evidence?.maps?.map(({ name }) => name) ?? [];
      if (names.length < 2) return;
      const name = names[(names.indexOf(own().map) + 1) % names.length];
      change({ map: name });
      app.announce(pane.evidence.maps.find((map) => map.name === name).label ?? name);
    }),
    add("mode", "a", "Active pane: slide, heat, heat over slide", () => {
      if (own().evidence === null) return;
      const modes = ["slide", "heat", "overlay"];
      change({ mode: modes[(modes.indexOf(own().mode) + 1) % 3] });
      app.announce(`Pane shows ${{ slide: "the slide", heat: "the heat", overlay: "the heat over the slide" }[own().mode]}`);
    }),
    add("opacity-more", "o", "Active pane: stronger heat", () => fade(0.1)),
    add("opacity-less", "Shift+O", "Active pane: fainter heat", () => fade(-0.1)),
    store.subscribe(["panes", "layout", "library"], show),
  ];
  show();
  return {
    element: bar,
    destroy() {
      for (const end of ends) end();
      bar.remove();
    },
  };
}
