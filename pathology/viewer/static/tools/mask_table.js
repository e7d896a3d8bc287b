// What a score is without a region: foretold by subtraction and by the linear map, and computed anew; and how far these are apart.

import { element } from "../base/dom.js";
import { count, decimalsFor, exact, logits, percent, plain } from "../base/numbers.js";

function rowsOf(result) {
  const { score, subtraction, linear, real, gaps } = result;
  const before = score.recomputed;
  const row = (name, label, hint, value, change, gap) => ({ name, label, hint, value, change, gap });
  return [
    row("before", "before", "The score of the slide as it is, computed now", before, null, null),
    row("subtraction", "ledger's prediction", "What the map holds inside is taken away", subtraction.predicted, subtraction.predicted - before, gaps.subtraction),
    ...(linear
      ? [row("linear", "linear prediction", "The painted pixels through the weights W(x) of the pixels before", linear.predicted, linear.change, gaps.linear)]
      : []),
    row("real", "the model again", "The painted tiles through the whole model", real, real - before, null),
  ];
}

/** The table with its notes. @param {string} region @param {object} result of ask/mask @returns {HTMLElement} */
export function maskTable(region, result) {
  const rows = rowsOf(result);
  const decimals = decimalsFor(rows.map(({ value }) => value));
  const number = (value) => element("td", { class: "ledger-number", text: logits(value, decimals) });
  const { score, tiles, fill } = result;
  const swatch = element("span", { class: "mask-colour" });
  swatch.style.background = fill.colour;
  const table = element(
    "table", { class: "ledger mask-table" },
    element("caption", { text: `Without ${region}, in logits` }),
    element("thead", {}, element("tr", {}, element("td", {}), ...["score", "change", "gap"].map((text) =>
      element("th", { scope: "col", text, title: text === "gap" ? "What the model says less what was predicted" : "" })))),
    element("tbody", {}, ...rows.map(({ name, label, hint, value, change, gap }) =>
      element("tr", { "data-row": name }, element("th", { scope: "row", text: label, title: hint }), number(value), number(change), number(gap)))),
  );
  const notes = [
    `${count(tiles.run)} of ${count(tiles.all)} tiles were run again; ${plain(result.area_mm2, 3)} mm² painted over.`,
    "The gap is the model's answer less the prediction. W(x) changes with what it is given, so a gap is no error: it tells how far " +
      "taking a region's share for its effect can be trusted here.",
    ...result.notes,
  ];
  const verdict = score.differs
    ? element("p", { class: "tool-problem", text: `Before painting, the model gives ${logits(score.recomputed, 5)}, stored is ${logits(score.stored, 5)}: further apart than ${plain(score.tolerance, 2)}. Predictions are from the score computed now.` })
    : element("p", { class: "tool-note", text: `Before painting, the model gives the stored score, to ${plain(Math.abs(score.recomputed - score.stored), 2)} logits.` });
  return element(
    "div", {}, table, verdict,
    element("p", { class: "tool-note" }, "Painted with ", swatch, ` ${fill.name} ${fill.colour}.`),
    ...notes.map((text) => element("p", { class: "tool-note", text })),
  );
}

/** The same as text with tabs between. */
export function maskText(region, result) {
  return [
    [`Without ${region} (logits)`, "score", "change", "gap"].join("\t"),
    ...rowsOf(result).map(({ label, value, change, gap }) => [label, value, change, gap].map((cell) => (typeof cell === "string" ? cell : exact(cell))).join("\t")),
  ].join("\n");
}

/** One sentence for screen readers. */
export function maskSentence(region, result) {
  const off = result.gaps.subtraction;
  const share = result.change === 0 ? "" : `, ${percent(Math.abs(off / result.change))} of the change`;
  return `Without ${region} the model says ${logits(result.real)}; the ledger's prediction is off by ${logits(off)}${share}.`;
}
