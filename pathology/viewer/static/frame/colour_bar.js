// How heat is coloured: one setting for all panes, targets, runs and slides, as colours are compared between them.

import { button, element, freshId } from "../base/dom.js";
import { mapOf } from "../base/names.js";
import { limitInView, limitOf, roundUp, stepLimit } from "../base/limits.js";
import { sharedTarget, targetsOf, withTarget } from "./pane_choices.js";

const SIGNS = { both: "Both", for: "For", against: "Against" };
const PALETTES = { "blue-brown": "Blue, brown", "purple-green": "Purple, green" };

/** The strip of colour settings under the header. @param {object} app */
export function createColourBar(app) {
  const { store, commands } = app;
  const colour = () => store.get().colour;
  const change = (patch) => store.set({ colour: { ...colour(), ...patch } });

  /** Name of the active pane's map, and the map as the server tells it, if it is known yet. */
  function kind() {
    const { panes, active } = store.get();
    const own = panes[active]?.evidence ? active : Math.max(0, panes.findIndex((pane) => pane.evidence !== null));
    const pane = app.panes?.list().find((one) => one.index === own);
    const map = mapOf(pane?.evidence ?? null, panes[own]?.map);
    return { name: map?.name ?? panes[own]?.map ?? "heatmap", map };
  }
  /** The limit of the map that is cut off below a threshold: the active pane's, or the first that has signs; null if none has. */
  function cutLimit() {
    const { panes, active } = store.get();
    const shown = app.panes?.list() ?? [];
    const maps = [active, ...panes.keys()].map((at) => mapOf(shown[at]?.evidence ?? null, panes[at]?.map)).filter(Boolean);
    const map = maps.length === 0 ? kind() : maps.find(({ signed }) => signed);
    return map === undefined ? null : limitOf(app, map.name, map);
  }
  const setLimit = (limit, { name } = kind()) => change({ limits: { ...colour().limits, [name]: limit } });

  // --- the limit
  const limit = element("input", { type: "text", inputMode: "decimal", class: "limit", size: 7, id: freshId(), autocomplete: "off" });
  const unit = element("span", { class: "unit" });
  const limitLabel = element("label", { for: limit.id, text: "Scale ±", title: "Colours are full at this value, and beyond it" });
  const fitButton = button("Fit to view", () => fit(), { title: "Full colour at what one in a hundred pixels in view exceeds (F)" });
  const usual = button("Default", () => reset(), { title: "The limit that fits all slides of the library (D)" });
  limit.addEventListener("change", () => {
    const value = Number(limit.value.trim().replace(",", "."));
    if (value > 0 && Number.isFinite(value)) setLimit(value);
    else app.notify(`The limit of colours is a number above 0, got “${limit.value}”.`, { kind: "note", key: "limit" });
    show();
  });
  async function fit() {
    const { name, map } = kind();
    const panes = app.panes.list().filter((pane) => pane.state().evidence !== null && mapOf(pane.evidence, pane.state().map)?.name === name);
    try {
      const found = (await Promise.all(panes.map((pane) => limitInView(app, pane)))).filter((value) => value !== null);
      if (found.length === 0) return app.notify("There is no heat in this view.", { kind: "note", key: "limit" });
      setLimit(roundUp(Math.max(...found)), { name, map });
      app.announce(`Scale ${limit.value} ${unit.textContent}`);
    } catch (error) {
      app.fail(error);
    }
  }
  function reset() {
    const { name, map } = kind();
    setLimit(app.library.limits[name] ?? map?.limit ?? 1);
    app.announce(`Scale ${limit.value} ${unit.textContent}`);
  }
  function stepBy(by) {
    const { name, map } = kind();
    setLimit(stepLimit(limitOf(app, name, map), by));
    app.announce(`Scale ${limit.value} ${unit.textContent}`);
  }

  // --- threshold, sign, palette, and how pixels are drawn
  const threshold = element("input", { type: "range", min: 0, max: 100, step: 1, id: freshId(), "aria-label": "Hide heat below" });
  const hidden = element("output", { class: "percent", for: threshold.id });
  threshold.addEventListener("input", () => {
    const most = cutLimit();
    if (most !== null) change({ threshold: (most * Number(threshold.value)) / 100 });
  });
  function stepThreshold(by) {
    threshold.value = Number(threshold.value) + by;
    threshold.dispatchEvent(new Event("input"));
    app.announce(`Hidden below ${hidden.textContent}`);
  }
  const signs = Object.entries(SIGNS).map(([sign, text]) =>
    button(text, () => change({ sign }), { "data-sign": sign, title: `Show evidence ${sign === "both" ? "for and against" : sign} (S)` }),
  );
  const palette = element(
    "select",
    { "aria-label": "Colours of evidence against and for", title: "Colours (P)" },
    ...Object.entries(PALETTES).map(([value, text]) => element("option", { value, text })),
  );
  palette.addEventListener("change", () => change({ palette: palette.value }));
  const box = (key, text, title) => {
    const input = element("input", { type: "checkbox", onchange: () => change({ [key]: input.checked }) });
    return { input, label: element("label", { class: "check", title }, input, text) };
  };
  const smooth = box("smooth", "Smooth", "Interpolate between the map’s pixels; the legend says so (I)");
  const grid = box("grid", "Tiles", "Outlines of the tiles that the model saw (G)");

  // --- targets of the slide, at once
  const targets = element("span", { class: "segments", role: "group", "aria-label": "Target of all panes" });
  const choose = (at) => {
    const { panes, slide } = store.get();
    const target = targetsOf(app.library, slide)[at];
    if (target === undefined) return;
    const next = withTarget(app.library, panes, target);
    if (next.every((pane, index) => pane === panes[index])) return;
    store.set({ panes: next });
    app.announce(`Target ${target}`);
  };

  const part = (title, ...children) => element("div", { class: "part" }, title ? element("span", { class: "part-name", text: title }) : null, ...children);
  const targetPart = part("Target", targets);
  const bar = element(
    "div",
    { class: "colour-bar", role: "toolbar", "aria-label": "Colours of heat" },
    targetPart,
    element("div", { class: "part" }, limitLabel, limit, unit, fitButton, usual),
    element("div", { class: "part" }, element("label", { for: threshold.id, class: "part-name", text: "Hide below" }), threshold, hidden),
    element("span", { class: "segments", role: "group", "aria-label": "Evidence for or against" }, signs),
    element("div", { class: "part" }, palette, smooth.label, grid.label),
  );

  function show() {
    const { panes, slide, page } = store.get();
    bar.hidden = page !== "slide" || panes.every((pane) => pane.evidence === null);
    if (bar.hidden) return;
    const { name, map } = kind();
    const now = limitOf(app, name, map);
    const own = colour();
    if (limit !== bar.getRootNode().activeElement) limit.value = String(Number(now.toPrecision(3)));
    limitLabel.textContent = name === "heatmap" ? "Scale ±" : `Scale of ${map?.label ?? name} ${map?.signed === false ? "" : "±"}`;
    unit.textContent = map?.unit ?? "logits/mm²";
    const most = cutLimit();
    threshold.disabled = most === null; // nothing on the screen has signs
    threshold.value = most === null ? 0 : Math.round((100 * own.threshold) / most);
    hidden.textContent = own.threshold === 0 ? "nothing" : String(Number(own.threshold.toPrecision(3)));
    for (const one of signs) {
      one.disabled = most === null;
      one.setAttribute("aria-pressed", String(one.dataset.sign === own.sign));
    }
    palette.value = own.palette;
    smooth.input.checked = own.smooth;
    grid.input.checked = own.grid;
    const all = targetsOf(app.library, slide);
    const shared = sharedTarget(app.library, panes);
    targetPart.hidden = all.length < 2;
    if (targets.dataset.all !== all.join("\n")) {
      targets.dataset.all = all.join("\n");
      targets.replaceChildren(...all.slice(0, 9).map((target, at) => button(target, () => choose(at), { title: `All panes show ${target} (${at + 1})` })));
    }
    [...targets.children].forEach((one, at) => one.setAttribute("aria-pressed", String(all[at] === shared)));
  }

  const next = (all, value) => all[(all.indexOf(value) + 1) % all.length];
  const enabled = () => !bar.hidden;
  const group = "Colours";
  const add = (id, key, label, run) => commands.add({ id, key, label, group, enabled, run });
  const toggle = (key, name) => {
    change({ [key]: !colour()[key] });
    app.announce(`${name} ${colour()[key] ? "on" : "off"}`);
  };
  const ends = [
    add("limit-fit", "f", "Scale fitted to what is in view", fit),
    add("limit-default", "d", "The library’s scale", reset),
    add("limit-lower", "c", "Stronger colours: a lower limit", () => stepBy(-1)),
    add("limit-higher", "Shift+C", "Weaker colours: a higher limit", () => stepBy(1)),
    add("threshold-higher", "h", "Hide more of what is weak", () => stepThreshold(5)),
    add("threshold-lower", "Shift+H", "Hide less of what is weak", () => stepThreshold(-5)),
    add("sign", "s", "Evidence for and against, for only, against only", () => {
      change({ sign: next(Object.keys(SIGNS), colour().sign) });
      app.announce(`Evidence: ${SIGNS[colour().sign]}`);
    }),
    add("palette", "p", "Other colours", () => {
      change({ palette: next(Object.keys(PALETTES), colour().palette) });
      app.announce(PALETTES[colour().palette]);
    }),
    add("smooth", "i", "Interpolate between pixels, or not", () => toggle("smooth", "Interpolation")),
    add("grid", "g", "Outlines of tiles", () => toggle("grid", "Outlines of tiles")),
    commands.add({
      id: "target",
      key: ["1", "2", "3", "4", "5", "6", "7", "8", "9"],
      label: "All panes show the target of this number",
      group,
      enabled,
      run: (event) => event && choose(Number(event.key) - 1),
    }),
    store.subscribe(["colour", "panes", "active", "page", "slide", "library"], show),
  ];
  show();
  return {
    element: bar,
    show,
    destroy() {
      for (const end of ends) end();
      bar.remove();
    },
  };
}
