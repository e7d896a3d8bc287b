// Asking the model itself: a tile down to its pixels, and the score without a region.

import { copyText } from "../base/copy.js";
import { button, element } from "../base/dom.js";
import { drawKeepingFocus } from "./focus.js";
import { createJob } from "./jobs.js";
import { limitOf } from "../base/limits.js";
import { maskSentence, maskTable, maskText } from "./mask_table.js";
import { decimalsFor, logits, percent, plain } from "../base/numbers.js";
import { floatsOf, pixelCanvas } from "./pixel_map.js";
import { activeEvidence, nameOf } from "../base/shown.js";

const FILLS = { background: "the slide's background", grey: "grey", mean: "the tiles' mean colour" };

/**
 * @param {object} app
 * @param {object} parts `overlay`, `regions`, `tiles`
 */
export function createModelPanel(app, { overlay, regions, tiles }) {
  const { store, commands } = app;
  const controller = new AbortController();
  let model = null; // {askable, state, problem, fills}, or an Error
  let isShown = false;
  let tile = null; // {evidence, slide, index, status, result, values: [Float32Array], addresses: {}, target, isOver}
  let mask = null; // {evidence, region, status, result}
  let fill = "background";
  let pictures = []; // addresses of Blobs

  const intro = element("p", { class: "tool-note" });
  const tilePlace = element("section", { "aria-label": "The tile, explained again" });
  const maskPlace = element("section", { "aria-label": "Without the region" });
  const fills = element("select", { "aria-label": "Paint with", onchange: () => (fill = fills.value) });
  const explainButton = button("Explain this tile", () => commands.run("model.tile"));
  const maskButton = button("Paint it over and run again", () => commands.run("model.mask"));
  const regionName = element("span", {});
  const tileName = element("span", {});
  const panel = element(
    "div", { class: "tool-panel" },
    intro,
    element("h3", { text: "A tile, down to its pixels" }),
    element("div", { class: "tool-actions" }, explainButton, tileName),
    tilePlace,
    element("h3", { text: "The score without a region" }),
    element("div", { class: "tool-actions" }, regionName),
    element("label", { class: "tool-field" }, "Paint with ", fills),
    element("div", { class: "tool-actions" }, maskButton),
    maskPlace,
  );

  const tileJob = createJob(app, (told) => void hearTile(told));
  const maskJob = createJob(app, hearMask);

  async function learn() {
    try {
      model = await app.transport.json("api/model", { signal: controller.signal });
    } catch (error) {
      if (controller.signal.aborted) return;
      model = error;
    }
    fills.replaceChildren(...(model.fills ?? Object.keys(FILLS)).map((name) => element("option", { value: name, text: FILLS[name] ?? name })));
    render();
  }

  const canAsk = (evidence) => Boolean(model?.askable?.includes(evidence));

  function whyNot(evidence) {
    if (model === null) return "Looking whether there is a model to ask…";
    if (model instanceof Error) return model.message;
    if (!model.askable.length) return model.problem ?? "There is no model to ask.";
    if (!evidence) return "No pane shows an explanation.";
    if (evidence.includes("~")) return "A difference has no model of its own: make a pane of one of the two the active one.";
    return canAsk(evidence) ? null : "No run that was given made this explanation.";
  }

  // --- a tile

  function askTile() {
    const { tile: chosen } = store.get();
    if (!chosen || !canAsk(chosen.evidence)) return;
    forget();
    tile = {
      evidence: chosen.evidence, slide: tiles.slideOf(chosen), index: chosen.index,
      status: null, result: null, values: [], drawn: null, target: 0, isOver: true, weights: null, read: null,
    };
    store.set({ panel: "model" });
    void tileJob.ask(`api/evidence/${chosen.evidence}/ask/tile`, { index: chosen.index });
  }

  async function hearTile(told) {
    const asked = tile;
    if (!asked) return;
    asked.status = told;
    if (told.state === "done") {
      try {
        const { result } = told;
        const part = (name) => `api/jobs/${told.id}/${name}`;
        const signal = controller.signal;
        const [values, weights, read] = await Promise.all([
          Promise.all(result.maps.map(async (map) => floatsOf(await app.transport.bytes(part(map.values), { signal })))),
          Promise.all(result.maps.map(async (map) => (map.picture ? addressOf(await app.transport.blob(part(map.picture), { signal })) : null))),
          result.tile ? app.transport.blob(part(result.tile), { signal }).then(addressOf) : null,
        ]);
        if (tile !== asked) return;
        Object.assign(asked, { result, values, weights, read });
        app.announce(verdictOf(result).text);
        paint();
      } catch (error) {
        asked.status = { state: "failed", error: error.message };
      }
    }
    render();
  }

  function addressOf(blob) {
    const address = URL.createObjectURL(blob);
    pictures.push(address);
    return address;
  }

  function forget() {
    for (const address of pictures) URL.revokeObjectURL(address);
    pictures = [];
    tile = null;
    layer.refresh();
  }

  function verdictOf({ check }) {
    const largest = Math.max(0, ...Object.values(check.differences).map(Math.abs));
    if (check.differs) return { isFine: false, text: check.line };
    if (!Object.keys(check.stored).length) return { isFine: true, text: "No number of this tile is stored to hold what was computed against." };
    return { isFine: true, text: `Computed again, the tile gives what is stored, to ${plain(largest, 2)} logits (float32 allows ${plain(check.tolerance, 2)}).` };
  }

  function lookFor(isOverlay) {
    const { colour } = store.get();
    return {
      limit: limitOf(app, "heatmap"), threshold: colour.threshold, sign: colour.sign, palette: colour.palette, signed: true, overlay: isOverlay,
    };
  }

  /** Make the pictures that lie over the panes: in the colours, and of the target, chosen now. */
  function paint() {
    if (!tile?.result) return;
    const values = tile.values[tile.target];
    tile.drawn = {};
    for (const kind of ["heat", "overlay"]) {
      const { canvas, clipped } = pixelCanvas(values, tile.result.places, lookFor(kind === "overlay"));
      tile.drawn[kind] = { canvas, address: canvas.toDataURL("image/png"), clipped };
    }
    layer.refresh();
  }

  const layer = overlay.add((pane) => {
    if (!tile?.drawn || !tile.isOver || pane.slide.id !== tile.slide) return [];
    const state = pane.state();
    const isSlide = state.mode === "slide" || !state.evidence;
    const isAlone = (store.get().panes ?? []).every((one) => one.mode === "slide");
    if (isSlide ? !isAlone : state.evidence !== tile.evidence) return []; // the slide, or what another run says, stays as it is
    const [x, y, width, height] = tile.result.box;
    const box = [x, y, x + width, y + height];
    const { depth, maps } = tile.result;
    const told = `Over tile ${tile.index}: its ${depth === "pixels" ? "pixels" : `places of ${depth}`} for ${maps[tile.target].target}${maps[tile.target].counts ? "" : ", as if the score counted it"}. ` +
      verdictOf(tile.result).text;
    if (state.mode === "heat") return [{ box, picture: tile.drawn.heat.address, className: "tool-heat", told }];
    // What is drawn of the coarse map there would shine through: the tile's own picture goes between.
    return [
      ...(tile.read ? [{ box, picture: tile.read, className: "tool-heat" }] : []),
      { box, picture: tile.drawn.overlay.address, className: "tool-heat", told, opacity: state.mode === "overlay" ? state.opacity : 1 },
    ];
  });

  function tileView() {
    const { status, result } = tile;
    if (!result) return [progressOf(status, tileJob, () => forget())];
    const map = result.maps[tile.target];
    const verdict = verdictOf(result);
    const targets = element("select", {
      "aria-label": "Explained for",
      onchange: () => {
        tile.target = Number(targets.value);
        paint();
        render();
      },
    }, ...result.maps.map(({ target }, i) => element("option", { value: i, text: target, selected: i === tile.target })));
    const over = element("input", {
      type: "checkbox", checked: tile.isOver, "data-key": "over",
      onchange: () => {
        tile.isOver = over.checked;
        layer.refresh();
      },
    });
    const heat = pixelCanvas(tile.values[tile.target], result.places, lookFor(false));
    heat.canvas.className = "tool-pixels";
    heat.canvas.setAttribute("role", "img");
    heat.canvas.setAttribute("aria-label", `Contributions of the tile's pixels to ${map.target}, ${logits(map.sum, 6)} logits in all`);
    const captioned = (node, text) => element("figure", {}, node, element("figcaption", { text }));
    const image = (address, alt) => element("img", { src: address, alt, class: "tool-pixels" });
    const { own } = map;
    const decimals = decimalsFor([own.bias, own.contribution, own.positive, own.negative]);
    const numbers = [
      ["bias", own.bias], ...Object.entries(own.constants ?? {}), ["contribution", own.contribution], ["· for", own.positive],
      ["· against", own.negative], ["= the tile's own logit", own.number],
    ];
    return [
      element("p", { class: verdict.isFine ? "model-fine" : "tool-problem", text: verdict.text }),
      element("div", { class: "tool-field" }, element("label", {}, "For ", targets), element("label", {}, over, " over the panes"), button("Let go", () => (forget(), render()))),
      element(
        "div", { class: "tool-pictures" },
        tile.read ? captioned(image(tile.read, `Tile ${result.index}, as the model reads it`), "the tile") : null,
        captioned(heat.canvas, `${result.depth === "pixels" ? "its pixels" : `places of ${result.depth}`}${heat.clipped > 0 ? `, ${percent(heat.clipped)} beyond ±${plain(limitOf(app, "heatmap"))} logits/mm²` : ""}`),
        tile.weights[tile.target] ? captioned(image(tile.weights[tile.target], "W(x) in colour: what the model looks for"), "W(x): what is looked for") : null,
      ),
      element(
        "table", { class: "ledger" },
        element("tbody", {}, ...numbers.map(([name, value]) =>
          element("tr", {}, element("th", { scope: "row", text: name }), element("td", { class: "ledger-number", text: logits(value, decimals) }))),
          element("tr", {}, element("th", { scope: "row", text: "gap" }), element("td", { class: "ledger-number", text: plain(own.gap, 2) })),
          element("tr", {}, element("th", { scope: "row", text: map.counts ? "adds to the slide" : "would add, if it counted" }), element("td", { class: "ledger-number", text: logits(map.sum, decimalsFor([map.sum])) })),
        ),
      ),
      checkTable(result.check),
      ...result.notes.map((text) => element("p", { class: "tool-note", text })),
    ];
  }

  function checkTable(check) {
    const decimals = decimalsFor([...Object.values(check.stored), ...Object.values(check.recomputed)]);
    return element(
      "details", { open: check.differs },
      element("summary", { text: "Stored and computed again" }),
      element(
        "table", { class: "ledger" },
        element("thead", {}, element("tr", {}, element("td", {}), ...["stored", "now", "difference"].map((text) => element("th", { scope: "col", text })))),
        element("tbody", {}, ...Object.keys(check.stored).map((name) =>
          element(
            "tr", {}, element("th", { scope: "row", text: name }),
            element("td", { class: "ledger-number", text: logits(check.stored[name], decimals) }),
            element("td", { class: "ledger-number", text: logits(check.recomputed[name], decimals) }),
            element("td", { class: "ledger-number", text: plain(check.differences[name], 2) }),
          ))),
      ),
    );
  }

  function progressOf(status, job, onOver) {
    const { state, done = 0, total = 0, what, error } = status ?? { state: "queued", what: "asking" };
    if (state === "failed") return element("p", { class: "tool-problem", text: error ?? "It failed." });
    if (state === "cancelled") return element("p", { class: "tool-note", text: "Given up." });
    const bar = element("progress", { "aria-label": what ?? "working" });
    if (total > 0) [bar.max, bar.value] = [total, done];
    return element(
      "div", { class: "tool-progress", role: "status" }, bar,
      element("span", { text: total > 0 ? `${what} ${done} of ${total}` : what ?? state }),
      button("Give up", () => {
        job.cancel();
        onOver?.();
        render();
      }),
    );
  }

  // --- a region

  function askMask() {
    const region = regions.selected();
    const evidence = activeEvidence(app);
    if (!region || !canAsk(evidence)) return;
    mask = { evidence, region, status: null, result: null };
    store.set({ panel: "model" });
    void maskJob.ask(`api/evidence/${evidence}/ask/mask`, { polygons: region.polygons, fill });
  }

  function hearMask(told) {
    if (!mask) return;
    mask.status = told;
    if (told.state === "done") {
      mask.result = told.result;
      app.announce(maskSentence(mask.region.name, told.result));
    }
    render();
  }

  /** Whether the answer is still about the region that is selected, as it is drawn now. */
  function isOfNow() {
    const region = regions.selected();
    return mask.evidence === activeEvidence(app) && region?.id === mask.region.id && region.polygons === mask.region.polygons;
  }

  function maskView() {
    if (!mask.result) return [progressOf(mask.status, maskJob)];
    const stale = isOfNow() ? null : element("p", { class: "tool-note", text: "This is of another region or explanation than the one selected now." });
    const name = `${mask.region.name} (${nameOf(app, mask.evidence)})`;
    const table = maskTable(name, mask.result);
    if (stale) table.classList.add("is-pending");
    return [
      ...(stale ? [stale] : []), table,
      button("Copy as table", async () => app.announce((await copyText(app.root, maskText(name, mask.result))) ? "The table is copied." : "The browser did not let it be copied.")),
    ];
  }

  // ---

  function render() {
    if (!isShown) return;
    const evidence = activeEvidence(app);
    const { tile: chosen } = store.get();
    const problem = whyNot(evidence);
    intro.hidden = problem === null;
    intro.textContent = problem ?? "";
    explainButton.disabled = !chosen || !canAsk(chosen.evidence);
    tileName.textContent = chosen ? `Tile ${chosen.index}, ${nameOf(app, chosen.evidence)}` : `No tile is selected: ${commands.keyOf("tool.tile")}, then click one.`;
    const region = regions.selected();
    maskButton.disabled = !region || !canAsk(evidence);
    regionName.textContent = region ? [region.name, evidence && nameOf(app, evidence)].filter(Boolean).join(", ") : `No region is selected: ${commands.keyOf("tool.lasso")} draws one.`;
    if (fills.value !== fill) fills.value = fill;
    drawKeepingFocus(tilePlace, () => tilePlace.replaceChildren(...(tile ? tileView() : [])));
    drawKeepingFocus(maskPlace, () => maskPlace.replaceChildren(...(mask ? maskView() : [])));
  }

  const group = "Model";
  const offs = [
    store.subscribe(["tile", "selected", "regions", "panes", "active"], render),
    store.subscribe(["colour"], () => {
      paint();
      render();
    }),
    store.subscribe(["panes", "tile"], () => {
      // A picture over another tile than the one selected would be taken for it.
      const { tile: chosen } = store.get();
      if (tile && (chosen?.index !== tile.index || chosen.evidence !== tile.evidence)) {
        tileJob.cancel();
        forget();
        render();
      } else layer.refresh();
    }),
    commands.add({
      id: "model.tile", key: "Shift+P", label: "Explain the selected tile down to its pixels", group,
      enabled: () => store.get().page === "slide" && canAsk(store.get().tile?.evidence), run: askTile,
    }),
    commands.add({
      id: "model.mask", key: "Shift+K", label: "Paint the selected region over and ask the model again", group,
      enabled: () => store.get().page === "slide" && regions.selected() !== null && canAsk(activeEvidence(app)), run: askMask,
    }),
    layer.remove,
  ];
  tiles.addAction((own) => (canAsk(store.get().tile?.evidence) ? button("Explain its pixels", () => commands.run("model.tile"), { "data-index": own.index }) : ""));
  void learn();

  return {
    element: panel,
    show(now) {
      isShown = now;
      if (now) {
        if (model instanceof Error) void learn();
        render();
      }
    },
    destroy() {
      controller.abort();
      tileJob.destroy();
      maskJob.destroy();
      for (const address of pictures) URL.revokeObjectURL(address);
      for (const off of offs) off();
    },
  };
}
