// The header: where one is, how panes lie, which panel is open, and what concerns the page.

import { createColourBar } from "./colour_bar.js";
import { button, element } from "../base/dom.js";
import { createLayoutBar } from "./layout_bar.js";
import { slideOf } from "../base/names.js";
import { createOtherSlide } from "./other_slide.js";
import { createPaneBar } from "./pane_bar.js";

/** Header, colour bar and the panes' bars. @param {object} app */
export function createToolbar(app) {
  const { store, commands, root } = app;
  const layout = createLayoutBar(app);
  const colours = createColourBar(app);
  const other = createOtherSlide(app);

  const run = (id) => () => commands.run(id);
  const back = button("All slides", run("list"), { title: "Back to the list of slides (U)" });
  const previous = button("Previous", run("previous"), { title: "Previous slide ([)", "aria-label": "Previous slide" });
  const next = button("Next", run("next"), { title: "Next slide (])", "aria-label": "Next slide" });
  const name = element("h1", {});
  const labels = element("span", { class: "labels" });
  const panel = button("Panel", run("panel"), { title: "Numbers beside the slides: ledger, regions, gallery, model (Q)" });
  const full = button("Full screen", run("full-screen"), { title: "Full screen (Shift+F)" });
  const theme = button("", run("theme"), { title: "Dark, light, or as the system has it (Shift+D)" });
  const help = button("Keys", run("help"), { title: "All keys (?)" });
  const line = element(
    "div",
    { class: "bar-line" },
    element("nav", { class: "where", "aria-label": "Slides" }, back, previous, next),
    element("div", { class: "title" }, name, labels),
    layout.element,
    element("span", { class: "page-tools" }, panel, theme, full, help),
  );
  full.hidden = !root.requestFullscreen;

  let lastPanel = store.get().panel ?? "ledger";
  commands.add({
    id: "panel",
    key: "q",
    label: "Panel with numbers, or not",
    group: "Page",
    run() {
      const { panel: open } = store.get();
      lastPanel = open ?? lastPanel;
      store.set({ panel: open === null ? lastPanel : null });
    },
  });
  commands.add({
    id: "full-screen",
    key: "Shift+F",
    label: "Full screen, or not",
    group: "Page",
    page: "any",
    enabled: () => Boolean(root.requestFullscreen),
    async run() {
      try {
        if (isFull()) await document.exitFullscreen();
        else await root.requestFullscreen();
      } catch {
        app.notify("The browser does not give the full screen.", { kind: "note", key: "full" });
      }
    },
  });
  const isFull = () => root.getRootNode().fullscreenElement === root; // a cell's root may be in a shadow tree
  const fullChanged = () => (full.textContent = isFull() ? "Leave full screen" : "Full screen");
  document.addEventListener("fullscreenchange", fullChanged);

  function show() {
    const { page, slide, theme: now } = store.get();
    const entry = page === "slide" ? slideOf(app.library, slide) : null;
    const isSlide = entry !== null;
    const isAlone = app.library.slides.length < 2;
    back.hidden = previous.hidden = next.hidden = !isSlide || isAlone;
    layout.element.hidden = panel.hidden = !isSlide;
    panel.setAttribute("aria-pressed", String(store.get().panel !== null));
    name.textContent = entry?.name ?? "Slides and their evidence";
    name.title = entry?.name ?? "";
    const told = Object.entries(entry?.labels ?? {}).filter(([, value]) => value !== "");
    labels.replaceChildren(...told.map(([key, value]) => element("span", { class: "label", title: key, text: `${key} ${value}` })));
    const at = app.order.indexOf(slide);
    previous.disabled = at <= 0;
    next.disabled = at < 0 || at >= app.order.length - 1;
    theme.textContent = `Theme: ${now}`;
    if (app.options.link) document.title = entry ? `${entry.name} – evidence` : "Slides and their evidence";
  }

  // --- a bar in each pane; in a curtain they stand beside each other over it
  const strip = element("div", { class: "pane-strip" });
  let bars = [];
  function placeBars() {
    const panes = app.panes?.list() ?? [];
    const many = store.get().panes.length;
    while (bars.length > many) bars.pop().element.remove();
    while (bars.length < many) bars.push(createPaneBar(app, bars.length, other.ask));
    const isCurtain = store.get().layout === "curtain";
    strip.hidden = !isCurtain || store.get().page !== "slide";
    bars.forEach((bar, index) => {
      const pane = panes.find((one) => one.index === index);
      const home = isCurtain || pane === undefined ? strip : pane.element;
      if (bar.element.parentElement !== home) home.prepend(bar.element);
      bar.element.hidden = isCurtain && pane?.element.hidden === true; // not one of the two
      bar.show(pane?.evidence ?? null);
    });
    if (isCurtain) strip.append(...bars.map((bar) => bar.element));
    colours.show();
  }

  // After a choice that was made with the mouse, keys are the slide's again, not the list's of choices.
  let isByPointer = false;
  const pointed = () => (isByPointer = true);
  const typed = () => (isByPointer = false);
  const chosen = ({ target }) => {
    const isOurs = target.matches("select, [type=range], [type=checkbox]") && target.closest(".bar, .pane-bar") !== null;
    if (!isByPointer || !isOurs || store.get().page !== "slide" || target.value === "another") return;
    app.focusPane();
  };
  root.addEventListener("pointerdown", pointed, true);
  root.addEventListener("keydown", typed, true);
  root.addEventListener("change", chosen);

  const ends = [
    store.subscribe(["page", "slide", "library", "theme", "list", "panel"], show),
    store.subscribe(["panes", "active", "layout", "library", "page"], placeBars),
  ];
  show();
  app.bar.append(line, colours.element, strip);
  return {
    /** To be called when the panes are made: their bars go into them. */
    placeBars() {
      ends.push(app.panes.on("change", placeBars) ?? (() => {}));
      placeBars();
    },
    destroy() {
      for (const end of ends) end?.();
      document.removeEventListener("fullscreenchange", fullChanged);
      root.removeEventListener("pointerdown", pointed, true);
      root.removeEventListener("keydown", typed, true);
      root.removeEventListener("change", chosen);
      layout.destroy();
      colours.destroy();
      other.destroy();
      line.remove();
      strip.remove();
    },
  };
}
