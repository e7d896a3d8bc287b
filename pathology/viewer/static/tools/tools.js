// The side panels and what is drawn over panes: ledger, regions, gallery, tile, model, figures.

import { createAnnotations } from "./annotations.js";
import { button, element, freshId } from "../base/dom.js";
import { createFigure } from "./figure.js";
import { createGalleryPanel } from "./gallery_panel.js";
import { createInfos } from "../base/infos.js";
import { createLasso } from "./lasso.js";
import { createLedgerPanel } from "./ledger_panel.js";
import { createModelPanel } from "./model_panel.js";
import { logits, percent, plain } from "../base/numbers.js";
import { createOverlay, isOutside } from "./overlay.js";
import { createRegions } from "./regions.js";
import { createRegionsPanel } from "./regions_panel.js";
import { activeEvidence, activePane, activeSlide } from "../base/shown.js";
import { createSums } from "./sums.js";
import { createTilePanel } from "./tile_panel.js";
import { createToolButtons } from "./tool_buttons.js";
import { viewPolygon } from "./view_sums.js";

/** @param {object} app as main.js makes it, with panes @returns {{element: HTMLElement, destroy: function()}} */
export function createTools(app) {
  const { store, commands } = app;
  const infos = createInfos(app);
  const sums = createSums(app);
  const overlay = createOverlay(app);
  const regions = createRegions(app, overlay, sums);
  const tiles = createTilePanel(app, overlay);
  const parts = { infos, sums, overlay, regions, tiles };
  const offs = [];

  let told = null; // the region whose sum is to be read out
  const lasso = createLasso(app, overlay, (ring, slide) => {
    if (isOutside(app, ring, slide)) return app.notify("That lies outside the slide: it holds nothing.", { kind: "note", key: "outside" });
    told = regions.draw([[ring]], slide).id;
    if (!["regions", "ledger", "model"].includes(store.get().panel)) store.set({ panel: "ledger" });
    readOut();
  });

  function readOut() {
    const region = regions.list().find((candidate) => candidate.id === told);
    const evidence = activeEvidence(app);
    if (!region || !evidence) return;
    const answer = sums.get(evidence, region);
    if (answer === "pending") return;
    told = null;
    if (answer instanceof Error) app.fail(answer);
    else
      app.announce(
        `${region.name}: ${logits(answer.sum)} logits, ${percent(answer.share)} of the map, on ${plain(answer.area_mm2)} mm².`,
      );
  }
  offs.push(sums.on(readOut));

  const panels = {
    ledger: { label: "Ledger", key: "Shift+L", part: createLedgerPanel(app, parts) },
    regions: { label: "Regions", key: "Shift+A", part: createRegionsPanel(app, parts) },
    gallery: { label: "Gallery", key: "Shift+T", part: createGalleryPanel(app, parts) },
    model: { label: "Model", key: "Shift+M", part: createModelPanel(app, parts) },
  };
  const annotations = createAnnotations(app, regions);
  const figure = createFigure(app, parts);

  const tabs = element("div", { class: "tool-tabs", role: "tablist", "aria-label": "Panels", onkeydown: alongTabs });
  const places = element("div", { class: "tool-places" });
  for (const [name, panel] of Object.entries(panels)) {
    const id = freshId();
    panel.tab = button(panel.label, () => store.set({ panel: name }), {
      role: "tab", id: `${id}-tab`, "aria-controls": id, title: panel.label, "data-panel": name,
    });
    panel.place = element("div", { role: "tabpanel", id, "aria-labelledby": `${id}-tab`, hidden: true }, panel.part.element);
    tabs.append(panel.tab);
    places.append(panel.place);
  }
  const shut = button("×", () => store.set({ panel: null }), { "aria-label": "Close the panel", class: "quiet" });
  const whole = element("section", { class: "tools", "aria-label": "Tools" }, element("div", { class: "tool-head" }, tabs, shut), places);

  function alongTabs(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const names = Object.keys(panels).filter((name) => !panels[name].tab.hidden);
    const next = names[(names.indexOf(store.get().panel) + by + names.length) % names.length];
    store.set({ panel: next });
    panels[next].tab.focus();
  }

  function showPanel() {
    const { panel: open, page } = store.get();
    whole.hidden = !panels[open] || page !== "slide";
    for (const [name, panel] of Object.entries(panels)) {
      const isOpen = name === open && page === "slide";
      panel.tab.setAttribute("aria-selected", String(isOpen));
      panel.tab.tabIndex = isOpen ? 0 : -1;
      panel.place.hidden = !isOpen;
      panel.part.show(isOpen);
    }
  }

  function pickAt(pane, point) {
    const evidence = pane.evidence?.id ?? pane.state?.().evidence ?? activeEvidence(app);
    if (evidence) tiles.pick(evidence, point);
    else app.announce("This pane shows no explanation.");
  }

  function pressed({ pane, x_um: x, y_um: y }) {
    if (!pane?.slide?.mpp) return;
    const point = [x / pane.slide.mpp[0], y / pane.slide.mpp[1]];
    const { tool } = store.get();
    if (tool === "tile") pickAt(pane, point);
    else if (tool === "pan") {
      const region = regions.at(point, pane.slide.id);
      if (region) regions.select(region.id);
    }
  }

  const onSlide = () => store.get().page === "slide";
  const hasSelected = () => onSlide() && regions.selected() !== null;
  const setTool = (tool, text) => () => {
    store.set({ tool });
    if (tool !== "pan") activePane(app)?.stage.focus({ preventScroll: true }); // Enter is for the crosshair, not for a button
    app.announce(text);
  };
  const all = [
    {
      id: "tool.lasso", key: "l", label: "Draw a region", group: "Regions", enabled: onSlide,
      run: setTool("lasso", "Draw: drag, or Enter at each corner and Shift+Enter to close."),
    },
    {
      id: "tool.tile", key: "t", label: "Pick a tile", group: "Evidence", enabled: onSlide,
      run: setTool("tile", "Pick a tile: click, or Enter at the crosshair."),
    },
    {
      id: "tool.pan", key: "Escape", label: "Leave drawing and picking", group: "Regions",
      enabled: () => onSlide() && store.get().tool !== "pan",
      run: () => (lasso.isDrawing() ? lasso.cancel() : setTool("pan", "Move the slide.")()),
    },
    {
      id: "tool.here", key: "Enter", label: "Point or tile at the crosshair", group: "Regions",
      enabled: () => onSlide() && store.get().tool !== "pan",
      run: () => {
        if (store.get().tool === "lasso") return lasso.addHere();
        const here = lasso.centre();
        if (here) pickAt(here.pane, here.point);
      },
    },
    {
      id: "region.view", key: "b", label: "What is seen as a region", group: "Regions", enabled: onSlide,
      run: () => {
        const ring = viewPolygon(app);
        if (!ring) return;
        told = regions.draw([[ring]], activeSlide(app)).id;
        if (store.get().panel === null) store.set({ panel: "regions" });
        readOut();
      },
    },
    { id: "region.next", key: "j", label: "Next region", group: "Regions", enabled: onSlide, run: () => regions.step(1) },
    { id: "region.previous", key: "Shift+J", label: "Previous region", group: "Regions", enabled: onSlide, run: () => regions.step(-1) },
    { id: "region.fly", key: "Shift+G", label: "Go to the selected region", group: "Regions", enabled: hasSelected, run: () => regions.fly() },
    {
      id: "region.delete", key: "Delete", label: "Delete the selected region", group: "Regions", enabled: hasSelected,
      run: () => regions.remove([regions.selected().id]),
    },
    {
      id: "region.clear", key: null, label: "Delete all regions", group: "Regions", enabled: () => regions.list().length > 0,
      run: () => regions.remove(regions.list().map((region) => region.id)),
    },
    {
      id: "region.restore", key: "Ctrl+z", label: "Bring deleted regions back", group: "Regions",
      enabled: () => onSlide() && regions.canRestore(), run: regions.restore,
    },
    ...Object.entries(panels).map(([name, { label, key }]) => ({
      id: `panel.${name}`, key, label: `${label} panel`, group: "Panels", enabled: onSlide,
      run: () => store.set({ panel: store.get().panel === name ? null : name }),
    })),
  ];
  for (const command of all) offs.push(commands.add(command));
  for (const [name, panel] of Object.entries(panels)) {
    panel.tab.title = `${panel.label} (${commands.keyOf(`panel.${name}`)})`;
  }
  offs.push(store.subscribe(["panel", "page"], showPanel), app.panes.on("press", pressed));
  offs.push(
    store.subscribe(["library"], () => {
      infos.retry(); // blind mode may show more by now
      sums.retry();
      tiles.retry();
    }),
  );
  const buttons = createToolButtons(app);
  showPanel();

  return {
    element: whole,
    destroy() {
      for (const off of offs) off?.();
      const made = [buttons, figure, annotations, ...Object.values(panels).map(({ part }) => part), lasso, tiles, regions, overlay, sums, infos];
      for (const part of made) part.destroy();
    },
  };
}
