// The tiles that argue most: for, against, and those within which most cancels; and how few carry how much.

import { curveFigure } from "./curve.js";
import { button, element } from "../base/dom.js";
import { createLatest } from "../base/latest.js";
import { count, decimalsFor, logits, percent, plain } from "../base/numbers.js";
import { createPictures, regionAddress } from "./pictures.js";
import { activeEvidence, nameOf } from "../base/shown.js";

const ORDERS = { for: "for the target", against: "against it", cancelling: "cancelling most" };
const FIRST = 12;
const PICTURE_PX = 160;

/** All the evidence of an order, as it counts for the score; what cancels has no sign. */
function signedSum({ order, evidence_sum: size }) {
  return order === "cancelling" ? plain(size, 4) : logits(order === "for" ? size : -size, decimalsFor([size]));
}

/**
 * @param {object} app
 * @param {object} parts `infos`, `regions`, `tiles`
 */
export function createGalleryPanel(app, { infos, regions, tiles }) {
  const { store } = app;
  const pictures = createPictures(app);
  const latest = createLatest(50, (error) => {
    state = { ...state, error, isPending: false };
    render();
  });
  let isShown = false;
  let order = "for";
  let inside = null; // id of the region that filters
  let wanted = FIRST;
  let state = { key: null, answer: null, error: null, isPending: false };

  const orderButtons = Object.entries(ORDERS).map(([name, label]) => button(label, () => setOrder(name), { "data-order": name }));
  const orders = element("div", { class: "tool-tabs", role: "group", "aria-label": "Order" }, ...orderButtons);
  const whose = element("h3");
  const filter = element("select", { "aria-label": "Only tiles inside", onchange: () => setInside(filter.value || null) });
  const heading = element("p", { class: "tool-note" });
  const figure = element("div");
  const list = element("ol", { class: "gallery", "aria-label": "Tiles" });
  const more = button("More tiles", () => {
    wanted += FIRST;
    ask();
  });
  const panel = element(
    "div", { class: "tool-panel" },
    whose,
    element("div", { class: "tool-actions" }, orders),
    element("label", { class: "tool-field" }, "Tiles inside ", filter),
    heading, figure, list, more,
  );

  function setOrder(next) {
    order = next;
    wanted = FIRST;
    ask();
  }

  function setInside(id) {
    inside = id;
    wanted = FIRST;
    ask();
  }

  function ask() {
    if (!isShown) return;
    const evidence = activeEvidence(app);
    const region = regions.list().find((candidate) => candidate.id === inside) ?? null;
    if (inside && !region) inside = null;
    if (!evidence) {
      latest.stop();
      state = { key: null, answer: null, error: null, isPending: false };
      return render();
    }
    const key = JSON.stringify([evidence, order, wanted, region?.polygons ?? null]);
    if (key === state.key && (state.answer || state.isPending)) return render();
    // More of the same list may stand until the longer one is there; another list may not.
    const isLonger = state.answer?.of === JSON.stringify([evidence, order, region?.polygons ?? null]);
    state = { key, answer: isLonger ? state.answer : null, error: null, isPending: true };
    render();
    latest.ask(async (signal) => {
      const body = { order, n: wanted, inside: region?.polygons ?? null };
      const told = await app.transport.json(`api/evidence/${evidence}/gallery`, { method: "POST", body, signal });
      if (state.key !== key) return;
      state = {
        key, error: null, isPending: false,
        answer: { ...told, evidence_sum: told.evidence, evidence, order, of: JSON.stringify([evidence, order, region?.polygons ?? null]) },
      };
      render();
      if (told.statement) app.announce(figure.querySelector("figcaption")?.textContent ?? "");
    });
  }

  function card(tile, evidence, decimals, mapSum) {
    const slide = tiles.slideOf({ evidence });
    const isChosen = store.get().tile?.evidence === evidence && store.get().tile.index === tile.index;
    const words = `Tile ${tile.index}: ${logits(tile.share, decimals)} logits`;
    const face = element(
      "button",
      {
        type: "button", class: "gallery-tile", "aria-pressed": isChosen ? "true" : "false", "data-index": tile.index,
        "aria-label": `${words}. Go there.`,
        onclick: () => go(tile, evidence),
      },
      pictures.show(regionAddress(slide, tile, PICTURE_PX), ""),
      element("span", { class: "gallery-number", text: logits(tile.share, decimals) }),
      element("span", { class: "gallery-share", title: "Of the sum of the map", text: mapSum ? `${percent(tile.share / mapSum)} of the map` : "" }),
    );
    if (order === "cancelling" && tile.positive !== null)
      face.append(element("span", { class: "gallery-share", text: `${logits(tile.weight * tile.positive, decimals)} ${logits(tile.weight * tile.negative, decimals)}` }));
    return element("li", {}, face);
  }

  function go(tile, evidence) {
    tiles.select(evidence, tile, store.get().panel ?? "gallery");
    tiles.fly();
  }

  function step(by) {
    const { answer } = state;
    if (answer?.evidence !== activeEvidence(app)) return store.set({ panel: "gallery" }); // it asks
    if (!answer.tiles.length) return;
    const { tile: chosen } = store.get();
    const at = answer.tiles.findIndex((tile) => tile.index === chosen?.index && answer.evidence === chosen.evidence);
    const next = answer.tiles[at < 0 ? 0 : at + by];
    if (!next) return app.announce(by > 0 ? "This is the last tile of the list." : "This is the first tile of the list.");
    go(next, answer.evidence);
    list.querySelector(`[data-index="${next.index}"]`)?.scrollIntoView({ block: "nearest" });
  }

  let drawn = null;
  function render() {
    if (!isShown) return;
    for (const one of orderButtons) one.setAttribute("aria-pressed", String(one.dataset.order === order));
    filter.replaceChildren(
      element("option", { value: "", text: "the whole slide" }),
      ...regions.list().map((region) => element("option", { value: region.id, text: region.name, selected: region.id === inside })),
    );
    const evidence = activeEvidence(app);
    const { answer, error, isPending } = state;
    whose.textContent = evidence ? nameOf(app, evidence) : "";
    heading.hidden = Boolean(answer) && !error;
    heading.className = error ? "tool-problem" : "tool-note";
    heading.textContent = error ? error.message : evidence ? "Looking for the tiles…" : "No pane shows an explanation of this slide.";
    list.setAttribute("aria-busy", String(isPending));
    list.classList.toggle("is-pending", isPending);
    more.hidden = !answer || answer.tiles.length < wanted || isPending;
    if (answer === drawn) return mark();
    drawn = answer;
    pictures.clear();
    figure.replaceChildren();
    list.replaceChildren();
    if (!answer) return;
    figure.append(curveFigure(answer.curve, answer.statement, answer.order));
    if (answer.evidence_sum > 0) figure.append(element("p", { class: "tool-note", text: `All of that evidence: ${signedSum(answer)} logits.` }));
    if (answer.unknown > 0)
      figure.append(element("p", { class: "tool-note", text: `Of ${count(answer.unknown)} tiles it is not known: they were not taken apart.` }));
    const decimals = decimalsFor(answer.tiles.map((tile) => tile.share));
    const info = infos.get(answer.evidence);
    const mapSum = info?.ledger?.map_sum;
    list.append(...answer.tiles.map((tile) => card(tile, answer.evidence, decimals, mapSum)));
    if (!answer.tiles.length) list.append(element("li", { class: "tool-note", text: "No tile is of this kind here." }));
  }

  function mark() {
    const { tile: chosen } = store.get();
    for (const face of list.querySelectorAll(".gallery-tile"))
      face.setAttribute("aria-pressed", String(chosen?.evidence === state.answer?.evidence && Number(face.dataset.index) === chosen?.index));
  }

  const group = "Evidence";
  const isOpen = () => store.get().page === "slide" && activeEvidence(app) !== null;
  const offs = [
    store.subscribe(["panes", "active", "regions"], ask),
    store.subscribe(["tile"], () => isShown && mark()),
    infos.on(() => {
      if (isShown && state.answer) (drawn = null), render();
    }),
    app.commands.add({ id: "gallery.next", key: ">", label: "Next tile of the gallery", group, enabled: isOpen, run: () => step(1) }),
    app.commands.add({ id: "gallery.previous", key: "<", label: "Previous tile of the gallery", group, enabled: isOpen, run: () => step(-1) }),
  ];

  return {
    element: panel,
    show(now) {
      isShown = now;
      if (now) ask();
    },
    destroy() {
      latest.stop();
      pictures.clear();
      for (const off of offs) off();
    },
  };
}
