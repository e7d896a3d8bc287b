// A ledger as a table: rows add up to the score, one column for each thing it is told of.

import { drawing, element } from "../base/dom.js";
import { decimalsFor, exact, logits, percent, plain } from "../base/numbers.js";

const BAR = { width: 100, height: 4 };

/** A thin bar under a number: from the middle to the right for, to the left against. */
function bar(value, largest) {
  const half = BAR.width / 2;
  const length = largest > 0 && Number.isFinite(value) ? (Math.abs(value) / largest) * half : 0;
  return drawing(
    "svg",
    { class: "ledger-bar", viewBox: `0 0 ${BAR.width} ${BAR.height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    drawing("rect", { class: "ledger-zero", x: half - 0.75, y: 0, width: 1.5, height: BAR.height }),
    drawing("rect", {
      class: value < 0 ? "is-against" : "is-for", x: value < 0 ? half - length : half, y: 0.5,
      width: length, height: BAR.height - 1,
    }),
  );
}

const ORDER = { bias: 0, map: 2, inside: 3, outside: 4, "cut off": 5 }; // constants, by whatever name, are 1

/**
 * Names of the parts of columns, as a person reads them. Columns are `[{title, full, hint, state, parts, total, score, gap, verdict, facts}]`:
 * `parts` are `[[name, value]]`, `facts` an object, `state` is "ready", "pending" (numbers are of what was before: shown grey),
 * "waiting" (none yet) or an Error.
 */
function partsOf(columns) {
  const names = [...new Set(columns.flatMap((column) => (column.parts ?? []).map(([name]) => name)))];
  return names.sort((a, b) => (ORDER[a] ?? 1) - (ORDER[b] ?? 1));
}

const FACTS = {
  share: { label: "share of the map", show: percent },
  for: { label: "inside, for", show: logits },
  against: { label: "inside, against", show: logits },
  density: { label: "logits/mm²", show: (value) => (value > 0 ? `+${plain(value)}` : plain(value)) },
  area_mm2: { label: "area, mm²", show: (value) => plain(value, 4) },
  covered_mm2: { label: "covered, mm²", show: (value) => plain(value, 4) },
  undivided: { label: "not taken apart", show: (value) => (value === null ? "" : value.toLocaleString("en")) },
  tiles: { label: "tiles inside", show: (value) => (value === null ? "" : value.toLocaleString("en")) },
};

/** What rows are, by their names. */
const HINTS = {
  map: "The sum of the heatmap's pixels",
  inside: "The part of the map inside",
  outside: "The rest of the map",
  "cut off": "What fell outside the slide and is not on the map",
  bias: "The constant that any slide gets",
  gap: "How far total and score are apart",
  share: "What lies inside, of the sum of the map",
  density: "What lies inside for each mm² of the area, covered or not",
  covered_mm2: "Where the map has values",
  tiles: "Tiles whose centre is inside",
  undivided: "Tiles reaching in whose sum lies evenly over them",
  for: "Sum of the positive pixels at the map's finest level",
  against: "Sum of the negative pixels at the map's finest level",
};

/** The table. @param {string} caption @param {object[]} columns @returns {HTMLTableElement} */
export function ledgerTable(caption, columns) {
  const parts = partsOf(columns);
  const facts = Object.keys(FACTS).filter((name) => columns.some((column) => column.facts?.[name] !== undefined));
  const valueOf = (column, name) => column.parts?.find(([part]) => part === name)?.[1] ?? null;
  const all = columns.flatMap((column) => [...(column.parts ?? []).map(([, value]) => value), column.total, column.score]);
  const decimals = decimalsFor(all.filter((value) => value !== null && value !== undefined));
  const largest = Math.max(...all.filter(Number.isFinite).map(Math.abs), 0);

  const cell = (column, text, bars = null) => {
    const made = element("td", { class: "ledger-number" });
    if (column.state === "waiting") made.append(element("span", { class: "ledger-waiting", text: "…" }));
    else made.append(element("span", { text }), ...(bars ? [bars] : []));
    if (column.state === "pending" || column.state === "waiting") made.setAttribute("aria-busy", "true");
    if (column.state === "pending") made.classList.add("is-pending");
    return made;
  };
  const row = (name, label, cells, className = "") =>
    element("tr", { class: className, "data-row": name }, element("th", { scope: "row", text: label, title: HINTS[name] ?? "" }), ...cells);

  const failed = (column) => column.state instanceof Error;
  const shown = columns.filter((column) => !failed(column));
  const head = element("tr", {}, element("td", {}), ...shown.map((column) => element("th", { scope: "col", text: column.title, title: column.hint ?? "" })));
  const body = element("tbody", {}, ...parts.map((name) => row(name, name, shown.map((column) => {
    const value = valueOf(column, name);
    return value === null && column.state !== "waiting" ? element("td", {}) : cell(column, logits(value, decimals), bar(value, largest));
  }), name === "inside" ? "ledger-inside" : "")));
  const sums = element(
    "tbody", { class: "ledger-sums" },
    row("total", "= total", shown.map((column) => cell(column, logits(column.total, decimals), bar(column.total, largest))), "ledger-total"),
    row("score", "score", shown.map((column) => cell(column, logits(column.score, decimals), bar(column.score, largest)))),
    row("gap", "gap", shown.map((column) => {
      const made = cell(column, plain(column.gap, 2));
      if (column.verdict && column.state === "ready")
        made.append(element("span", { class: column.verdict.isClosed ? "ledger-closed" : "ledger-open", ...column.verdict.shown }));
      return made;
    })),
  );
  const table = element(
    "table", { class: "ledger ledger-columns" }, element("caption", { text: `${caption}, in logits` }), element("thead", {}, head), body, sums,
  );
  if (facts.length)
    table.append(element("tbody", { class: "ledger-facts" }, ...facts.map((name) =>
      row(name, FACTS[name].label, shown.map((column) => {
        const value = column.facts?.[name];
        if (value === undefined && column.state !== "waiting") return element("td", {});
        return cell(column, FACTS[name].show(value ?? null, decimals));
      })))));
  for (const column of columns.filter(failed))
    table.append(element("tbody", {}, element("tr", {}, element("td", {
      class: "tool-problem", colSpan: shown.length + 1, text: `${column.title}: ${column.state.message}`,
    }))));
  return table;
}

/** What the rows of tables are, as a list to be opened. @param {object[][]} tables columns of each @returns {HTMLElement[]} */
export function rowHints(tables) {
  const columns = tables.flat();
  const names = [...partsOf(columns), "gap", ...Object.keys(FACTS).filter((name) => columns.some((column) => column.facts?.[name] !== undefined))];
  return names.filter((name) => HINTS[name]).flatMap((name) => [element("dt", { text: FACTS[name]?.label ?? name }), element("dd", { text: HINTS[name] })]);
}

/** The same as text with tabs between, all digits, for spreadsheets; columns that are not ready are left out. */
export function ledgerText(caption, columns) {
  const ready = columns.filter((column) => column.state === "ready");
  const line = (label, pick) => [label, ...ready.map((column) => exact(pick(column)))].join("\t");
  const parts = partsOf(ready);
  const facts = Object.keys(FACTS).filter((name) => ready.some((column) => column.facts?.[name] !== undefined));
  return [
    [`${caption} (logits)`, ...ready.map((column) => column.full ?? column.title)].join("\t"),
    ...parts.map((name) => line(name, (column) => column.parts.find(([part]) => part === name)?.[1])),
    line("total", (column) => column.total),
    line("score", (column) => column.score),
    line("gap", (column) => column.gap),
    ...facts.map((name) => line(FACTS[name].label, (column) => column.facts?.[name])),
  ].join("\n");
}
