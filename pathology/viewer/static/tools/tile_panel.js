// One tile: what the model said of it, what it adds to the slide, and its picture.

import { button, element } from "../base/dom.js";
import { createLatest } from "../base/latest.js";
import { decimalsFor, logits, plain } from "../base/numbers.js";
import { createPictures, regionAddress } from "./pictures.js";
import { shownEvidence } from "../base/shown.js";

const PICTURE_PX = 224;

function centreOf(tile) {
  return [tile.x + tile.width / 2, tile.y + tile.height / 2];
}

/** A tile's box as a closed ring. */
function ringOf({ x, y, width, height }) {
  return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
}

/** Of tiles over a point the one whose centre is nearest: what a person means where tiles overlap. */
export function nearest(tiles, [x, y]) {
  const far = (tile) => Math.hypot(centreOf(tile)[0] - x, centreOf(tile)[1] - y);
  return [...tiles].sort((a, b) => far(a) - far(b))[0] ?? null;
}

/**
 * @param {object} app
 * @param {{add: function}} overlay
 */
export function createTilePanel(app, overlay) {
  const { store } = app;
  const found = new Map(); // "evidence/index" or "evidence@x,y" -> tile, "pending", null (no tile there) or an Error
  const listeners = new Set();
  const pictures = createPictures(app);
  const section = element("section", { class: "tool-tile", "aria-label": "Tile", hidden: true });
  const controller = new AbortController();
  const picking = createLatest(0, app.fail);
  let pictured = null;
  let extras = [];

  const tell = () => {
    render();
    layer.refresh();
    for (const listener of listeners) listener();
  };

  function lookUp(key, path, read) {
    if (!found.has(key)) {
      found.set(key, "pending");
      app.transport.json(path, { signal: controller.signal }).then(
        (answer) => found.has(key) && found.set(key, read(answer)),
        (error) => found.has(key) && found.set(key, error),
      ).then(() => controller.signal.aborted || tell());
    }
    return found.get(key);
  }

  /** The selected tile as an explanation tells of it: `"pending"`, an Error, or null where there is none. */
  function of(evidence) {
    const { tile: chosen } = store.get();
    if (!chosen) return null;
    const own = lookUp(`${chosen.evidence}/${chosen.index}`, `api/evidence/${chosen.evidence}/tiles/${chosen.index}`, (tile) => tile);
    if (evidence === chosen.evidence || !own || own === "pending" || own instanceof Error) return own;
    const [x, y] = centreOf(own);
    return lookUp(`${evidence}@${x},${y}`, `api/evidence/${evidence}/at?x=${x}&y=${y}`, ({ tiles }) => nearest(tiles, [x, y]));
  }

  function pick(evidence, [x, y]) {
    picking.ask(async (signal) => {
      const { tiles } = await app.transport.json(`api/evidence/${evidence}/at?x=${x}&y=${y}`, { signal });
      const tile = nearest(tiles, [x, y]);
      if (!tile) {
        app.announce("No tile there.");
        store.set({ tile: null });
        return;
      }
      select(evidence, tile);
    });
  }

  function select(evidence, tile, panel = "ledger") {
    found.set(`${evidence}/${tile.index}`, tile);
    store.set({ tile: { evidence, index: tile.index }, panel: store.get().panel === "model" ? "model" : panel });
    app.announce(`Tile ${tile.index}: ${logits(tile.share)} logits of the slide's score.`);
  }

  function fly() {
    const { tile: chosen, slide } = store.get();
    const tile = chosen && of(chosen.evidence);
    const mpp = app.panes.list().find((pane) => pane.slide?.id === slideOf(chosen))?.slide.mpp ?? app.panes.list().find((pane) => pane.slide?.id === slide)?.slide.mpp;
    if (!mpp || !tile?.width) return;
    const [width, height] = [tile.width * mpp[0], tile.height * mpp[1]];
    app.panes.flyTo([tile.x * mpp[0] - width, tile.y * mpp[1] - height, 3 * width, 3 * height]);
  }

  const slideOf = (chosen) => app.library.evidence.find((entry) => entry.id === chosen?.evidence.split("~")[0])?.slide ?? null;

  function rows(tile, decimals) {
    const all = [
      ["bias", logits(tile.bias, decimals)],
      ["contribution", logits(tile.contribution, decimals)],
      ["· for", logits(tile.positive, decimals)],
      ["· against", logits(tile.negative, decimals)],
      ["= the tile's own logit", tile.bias === null || tile.contribution === null ? "" : logits(tile.bias + tile.contribution, decimals)],
      ["gap", plain(tile.gap, 2)],
      ["weight in the slide", plain(tile.weight, 4)],
      ["adds to the slide: weight × contribution", logits(tile.share, decimalsFor([tile.share]))],
      ...Object.entries(tile.logits ?? {}).map(([name, value]) => [`logit of ${name}`, logits(value, decimals)]),
      ["score without the tile: change", logits(tile.removal_effect, decimals)],
      ["attention", plain(tile.attention, 4)],
    ];
    return all.filter(([, text]) => text !== "");
  }

  function render() {
    const { tile: chosen } = store.get();
    section.hidden = !chosen;
    if (!chosen) return;
    const own = of(chosen.evidence);
    if (own === "pending" || own instanceof Error) {
      section.replaceChildren(element("p", { class: own === "pending" ? "tool-note" : "tool-problem", text: own === "pending" ? "Reading the tile…" : own.message }));
      return;
    }
    const slide = slideOf(chosen);
    const key = `${slide}/${own.x},${own.y},${own.width}`;
    if (pictured?.key !== key) {
      pictures.clear();
      const image = pictures.show(regionAddress(slide, own, PICTURE_PX), `Tile ${own.index} of the slide`);
      pictured = { key, image };
    }
    const shown = shownEvidence(app).some(({ id }) => id === chosen.evidence)
      ? shownEvidence(app) : [{ id: chosen.evidence, name: "", short: "" }];
    const columns = shown.map(({ id, name, short }) => ({ name, short, tile: of(id) })).filter(({ tile }) => tile?.width);
    const decimals = decimalsFor(columns.flatMap(({ tile }) => [tile.bias, tile.contribution, tile.positive, tile.negative]));
    const told = columns.map(({ tile }) => new Map(rows(tile, decimals)));
    const names = [...new Set(told.flatMap((row) => [...row.keys()]))];
    const table = element("table", { class: "ledger tool-tile-table" });
    if (columns.length > 1)
      table.append(element("thead", {}, element("tr", {}, element("td", {}), ...columns.map(({ name, short }) => element("th", { scope: "col", text: short, title: name })))));
    table.append(element("tbody", {}, ...names.map((name) =>
      element("tr", {}, element("th", { scope: "row", text: name }), ...told.map((row) => element("td", { class: "ledger-number", text: row.get(name) ?? "" }))))));
    section.replaceChildren(
      element("h3", { text: `Tile ${own.index}, in logits` }),
      element(
        "div", { class: "tool-actions" },
        button("Go there", () => app.commands.run("tile.fly")),
        button("Let go", () => store.set({ tile: null })),
        button("Before", () => app.commands.run("gallery.previous"), { title: "The tile before it in the gallery" }),
        button("Next", () => app.commands.run("gallery.next"), { title: "The next tile in the gallery" }),
        ...extras.map((make) => make(own)),
      ),
      pictured.image, table,
      own.undivided
        ? element("p", { class: "tool-note", text: "Not taken apart: its contribution is exact, but lies evenly over it." })
        : "",
    );
  }

  const layer = overlay.add((pane) => {
    const { tile: chosen } = store.get();
    const tile = chosen && pane.slide.id === slideOf(chosen) ? of(chosen.evidence) : null;
    return tile?.width ? [{ lines: [ringOf(tile)], label: `Tile ${tile.index}`, className: "tool-tile-outline" }] : [];
  });
  // Of other tiles nothing is kept, refusals neither.
  function forget({ tile: chosen }) {
    const own = `${chosen?.evidence}/${chosen?.index}`;
    for (const key of found.keys()) if (key !== own || found.get(key) instanceof Error) found.delete(key);
  }

  const offs = [
    store.subscribe(["tile"], forget),
    store.subscribe(["tile", "panes", "active"], tell),
    app.commands.add({
      id: "tile.fly", key: "w", label: "Go to the selected tile", group: "Evidence", enabled: () => store.get().tile !== null, run: fly,
    }),
    layer.remove,
  ];

  return {
    element: section,
    of,
    pick,
    select,
    fly,
    slideOf,
    /** Ask again what could not be answered. */
    retry() {
      for (const [key, tile] of found) if (tile instanceof Error) found.delete(key);
      tell();
    },
    /** Put something made from the tile among its buttons. */
    addAction: (make) => extras.push(make),
    render,
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    destroy() {
      controller.abort();
      picking.stop();
      pictures.clear();
      for (const off of offs) off?.();
    },
  };
}
