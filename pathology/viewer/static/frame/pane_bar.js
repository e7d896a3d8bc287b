// A pane's own choices, at its top: what it shows, which map, how, and how strongly.

import { button, element } from "../base/dom.js";
import { slidePane } from "../list/first_view.js";
import { describe, mapOf, slideOf } from "../base/names.js";
import { changed, choicesFor, showing } from "./pane_choices.js";

const MODES = { slide: "Slide", heat: "Heat", overlay: "Overlay" };
const MODE_TITLES = { slide: "The slide alone", heat: "The heat alone", overlay: "The heat over the slide" };

/**
 * The bar of pane `index`.
 * @param {object} app
 * @param {number} index
 * @param {function(number)} otherSlide asks for another slide for it
 * @returns {{element: HTMLElement, show: function(object|null)}} `show` takes the pane's evidence, for its maps
 */
export function createPaneBar(app, index, otherSlide) {
  const { store } = app;
  const state = () => store.get().panes[index];
  const change = (patch) => store.set({ panes: changed(store.get().panes, index, patch), active: index });

  const what = element("select", { class: "what", "aria-label": `What pane ${index + 1} shows` });
  const map = element("select", { class: "map", "aria-label": `Which map pane ${index + 1} shows` });
  const modes = Object.entries(MODES).map(([mode, text]) =>
    button(text, () => change({ mode }), { "data-mode": mode, title: `${MODE_TITLES[mode]} (A)` }),
  );
  const opacity = element("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": `Opacity of the heat in pane ${index + 1}` });
  const percent = element("output", { class: "percent" });
  const close = button("×", () => closePane(), {
    class: "quiet close",
    title: "Close this pane (Shift+N)",
    "aria-label": `Close pane ${index + 1}`,
  });
  const how = element(
    "span",
    { class: "how" },
    element("span", { class: "segments", role: "group", "aria-label": `How pane ${index + 1} shows it` }, modes),
    element("label", { class: "opacity", title: "Opacity of the heat (O, Shift+O)" }, opacity, percent),
  );
  const bar = element(
    "div",
    { class: "pane-bar", role: "group", "aria-label": `Pane ${index + 1}` },
    element(
      "div",
      { class: "pane-choices" },
      element("span", { class: "pane-number", text: index + 1, "aria-hidden": "true" }),
      what,
      map,
      how,
      close,
    ),
  );

  what.addEventListener("change", () => {
    if (what.value === "another") {
      show(null);
      otherSlide(index);
    } else if (what.value === "back") {
      store.set({ panes: store.get().panes.map((pane, at) => (at === index ? slidePane(store.get().slide) : pane)) });
    } else store.set({ panes: store.get().panes.map((pane, at) => (at === index ? showing(pane, what.value || null) : pane)), active: index });
  });
  map.addEventListener("change", () => change({ map: map.value }));
  opacity.addEventListener("input", () => change({ opacity: opacity.value / 100 }));
  // What is typed or dragged here is not for the picture beneath.
  for (const kind of ["pointerdown", "mousedown", "wheel", "dblclick", "touchstart"]) {
    bar.addEventListener(kind, (event) => event.stopPropagation(), { passive: true });
  }

  function closePane() {
    const { panes, active } = store.get();
    const left = panes.filter((_, at) => at !== index);
    app.focusPane();
    store.set({ panes: left, active: Math.min(active, left.length - 1), layout: left.length > 1 ? store.get().layout : "grid" });
  }

  let shownFor = null;
  function show(evidence) {
    const pane = state();
    if (pane === undefined) return;
    const { library } = app;
    const key = `${pane.slide}`;
    if (shownFor?.key !== key || shownFor.library !== library) fill(pane);
    shownFor = { key, library };
    const isKnown = [...what.options].some((option) => option.value === pane.evidence);
    if (pane.evidence !== null && !isKnown) {
      const told = describe(library, pane.evidence);
      what.append(element("option", { value: pane.evidence, text: told?.title ?? "an explanation that is not here" }));
    }
    what.value = pane.evidence ?? "";
    what.title = what.selectedOptions[0]?.title || what.selectedOptions[0]?.textContent || "";
    const maps = evidence?.maps ?? [{ name: pane.map, label: pane.map }];
    map.replaceChildren(...maps.map(({ name, label }) => element("option", { value: name, text: label ?? name })));
    map.value = mapOf(evidence, pane.map)?.name ?? pane.map;
    map.title = map.selectedOptions[0]?.textContent ?? "";
    map.hidden = pane.evidence === null || maps.length < 2;
    for (const one of modes) one.setAttribute("aria-pressed", String(one.dataset.mode === pane.mode));
    how.hidden = pane.evidence === null;
    opacity.parentElement.hidden = pane.mode !== "overlay";
    opacity.value = Math.round(100 * pane.opacity);
    percent.textContent = `${opacity.value} %`;
    close.hidden = store.get().panes.length < 2;
    bar.dataset.active = String(store.get().active === index && store.get().panes.length > 1);
  }

  function fill(pane) {
    const { library } = app;
    const own = slideOf(library, pane.slide);
    const isOther = pane.slide !== store.get().slide;
    what.replaceChildren(
      element("option", { value: "", text: isOther ? own?.name ?? "another slide" : "Slide" }),
      ...choicesFor(library, pane.slide).map(({ label, choices }) =>
        element(
          "optgroup",
          { label: isOther ? `${own?.name}, ${label}` : label },
          ...choices.map(({ value, text, title }) => element("option", { value, text, title })),
        ),
      ),
      ...(library.slides.length > 1 ? [element("option", { value: "another", text: "Another slide…" })] : []),
      ...(isOther ? [element("option", { value: "back", text: "Back to this slide" })] : []),
    );
  }

  return { element: bar, show };
}
