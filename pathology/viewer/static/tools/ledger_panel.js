// The ledger: where the score comes from, for the slide, what is seen, the selected region and the selected tile.

import { button, element } from "../base/dom.js";
import { copyText } from "../base/copy.js";
import { ledgerTable, ledgerText, rowHints } from "./ledger_table.js";
import { count, logits, plain } from "../base/numbers.js";
import { shownEvidence } from "../base/shown.js";
import { createViewSums } from "./view_sums.js";

function verdictOf(ledger) {
  const shown = { text: ledger.is_closed ? "closed" : "NOT CLOSED", title: `The tolerance is ${plain(ledger.tolerance, 2)} logits` };
  return { isClosed: ledger.is_closed, shown };
}

function totalOf(parts) {
  return parts.reduce((sum, [, value]) => sum + value, 0);
}

/** The slide's column of an explanation's ledger. */
function slideColumn(ledger) {
  const parts = [
    ["bias", ledger.bias], ...Object.entries(ledger.constants ?? {}), ["map", ledger.map_sum], ["cut off", ledger.cut_off],
  ];
  return {
    title: "Slide", state: "ready", parts, total: ledger.total ?? totalOf(parts), score: ledger.score, gap: ledger.gap,
    verdict: verdictOf(ledger),
  };
}

/** A region's column: the server's answer about it. */
function regionColumn(title, answer, state, ledger) {
  if (!answer) return { title, state };
  const facts = {};
  for (const name of ["share", "for", "against", "density", "area_mm2", "covered_mm2", "tiles"])
    if (answer[name] !== undefined) facts[name] = answer[name];
  if (answer.undivided > 0) facts.undivided = answer.undivided;
  return {
    title, state, parts: answer.ledger, total: answer.total, score: answer.score, gap: answer.gap, facts,
    verdict: verdictOf(ledger),
  };
}

/** A tile's column: what it adds to the slide's score, beside all the rest. */
function tileColumn(tile, ledger) {
  const title = `Tile ${tile.index}`;
  if (tile.share === null || tile.share === undefined) return { title, state: "waiting" };
  const constants = Object.entries(ledger.constants ?? {});
  const parts = [
    ["bias", ledger.bias], ...constants, ["inside", tile.share],
    ["outside", ledger.map_sum + ledger.cut_off - tile.share],
  ];
  return {
    title, hint: "Weight times contribution; what is cut off counts as outside", state: "ready", parts, total: totalOf(parts),
    score: ledger.score, gap: Math.abs(ledger.score - totalOf(parts)), verdict: verdictOf(ledger),
    facts: { share: ledger.map_sum === 0 ? null : tile.share / ledger.map_sum },
  };
}

/** What of the map is told by whole tiles only, in words; null where all were taken apart. */
export function undividedText(ledger) {
  const part = ledger.undivided;
  if (!part?.tiles) return null;
  return (
    `${count(part.tiles)} tiles, ${logits(part.net)} logits of the map, were not taken apart: what each adds is exact but lies ` +
    "evenly over it. A region that cuts through them is an estimate there."
  );
}

/**
 * @param {object} app
 * @param {object} parts `infos`, `regions`, `sums`, `tiles`
 */
export function createLedgerPanel(app, { infos, regions, sums, tiles }) {
  const tables = element("div", { class: "ledger-tables" });
  const hints = element("dl", { class: "ledger-hints" });
  const again = button("Try again", () => {
    infos.retry();
    sums.retry();
    view.retry();
    tiles.retry();
  });
  const panel = element(
    "div", { class: "tool-panel" },
    element("div", { class: "tool-actions" }, button("Copy as table", () => app.commands.run("ledger.copy"))),
    element("p", { class: "tool-note", text: "The score is a sum: the bias, which any slide gets, and what the map holds. Above 0 speaks for the target, below 0 against it." }),
    tables, again, element("details", {}, element("summary", { text: "What the lines mean" }), hints),
    tiles.element,
  );
  let isShown = false;
  let built = [];
  const view = createViewSums(app, () => (isShown ? shownEvidence(app).map(({ id }) => id) : []), render);

  function columnsOf(id) {
    const info = infos.get(id);
    if (info instanceof Error) return [{ title: "Slide", state: info }];
    if (!info) return [{ title: "Slide", state: "waiting" }];
    const { ledger } = info;
    const now = view.of(id);
    const columns = [slideColumn(ledger), regionColumn("View", now.answer, now.state, ledger)];
    const region = regions.selected();
    if (region) {
      const answer = sums.get(id, region);
      const state = answer === "pending" ? "waiting" : answer instanceof Error ? answer : "ready";
      columns.push(regionColumn(region.name, state === "ready" ? answer : null, state, ledger));
    }
    const tile = tiles.of(id);
    if (tile === "pending") columns.push({ title: "Tile", state: "waiting" });
    else if (tile instanceof Error) columns.push({ title: "Tile", state: tile });
    else if (tile) columns.push(tileColumn(tile, ledger));
    return columns;
  }

  // One explanation: a table with a column for each scope. Several: a table for each scope, so that they stand side by side.
  function tablesOf() {
    const shown = shownEvidence(app);
    const all = shown.map(({ id, name, short }) => ({ name, short, columns: columnsOf(id) }));
    if (all.length < 2) return all.map(({ name, columns }) => [name, columns]);
    const scopes = Math.max(...all.map(({ columns }) => columns.length));
    return Array.from({ length: scopes }, (_, at) => [
      all.find(({ columns }) => columns[at])?.columns[at].title ?? "",
      all.filter(({ columns }) => columns[at]).map(({ name, short, columns }) => ({ ...columns[at], title: short, hint: name, full: name })),
    ]);
  }

  function render() {
    if (!isShown) return;
    built = tablesOf();
    const notes = shownEvidence(app).map(({ id }) => infos.get(id)).filter((info) => info?.ledger)
      .map((info) => undividedText(info.ledger)).filter(Boolean);
    tables.replaceChildren(
      ...built.map(([caption, columns]) => ledgerTable(caption, columns)),
      ...[...new Set(notes)].map((text) => element("p", { class: "tool-note", text })),
    );
    hints.replaceChildren(...rowHints(built.map(([, columns]) => columns)));
    again.hidden = !built.some(([, columns]) => columns.some(({ state }) => state instanceof Error));
    if (!built.length)
      tables.append(element("p", { class: "tool-note", text: "No pane shows an explanation of this slide." }));
  }

  const offs = [
    app.panes.on("view", () => view.look()),
    app.panes.on("change", () => (view.look(), render())),
    app.store.subscribe(["panes", "active", "regions", "selected", "tile"], () => (view.look(), render())),
    infos.on(() => (view.look(), render())),
    sums.on(render),
    tiles.on(render),
    app.commands.add({
      id: "ledger.copy", key: "Shift+Y", label: "Copy the ledger as a table", group: "Evidence",
      enabled: () => app.store.get().page === "slide" && shownEvidence(app).length > 0,
      run: async () => {
        const text = tablesOf().map(([caption, columns]) => ledgerText(caption, columns)).join("\n\n");
        app.announce((await copyText(app.root, text)) ? "The ledger is copied." : "The browser did not let it be copied.");
      },
    }),
  ];

  return {
    element: panel,
    show(now) {
      isShown = now;
      if (now) {
        view.look();
        render();
      }
    },
    destroy() {
      view.destroy();
      for (const off of offs) off?.();
    },
  };
}
