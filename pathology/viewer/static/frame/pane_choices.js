// What a pane may show, and how the panes change: pure functions of the state and the library.

import { heatPane, slidePane } from "../list/first_view.js";
import { describe, evidenceOf, isOpen, partsOf } from "../base/names.js";

const MOST_DIFFERENCES = 24;

/** Panes with one of them changed. @param {object[]} panes @param {number} index @param {object} patch */
export function changed(panes, index, patch) {
  return panes.map((pane, at) => (at === index ? { ...pane, ...patch } : pane));
}

/** A pane that shows this explanation, or only its slide (null), else as it was. @param {object} pane @param {string|null} evidence */
export function showing(pane, evidence) {
  if (evidence === null) return { ...pane, evidence, mode: "slide" };
  return { ...pane, evidence, mode: pane.mode === "slide" || pane.evidence === null ? "overlay" : pane.mode };
}

/** Runs by id, as they are called where there is little room: without folders that tell none of them apart. */
function shortNames(runs) {
  const last = ({ name }) => name.split("/").at(-1);
  const areClear = new Set(runs.map(last)).size === runs.length;
  return new Map(runs.map((run) => [run.id, areClear ? last(run) : run.name]));
}

/**
 * What a slide's pane can show besides the slide: explanations by run, and differences; `text` is short, the target
 * first, since what is long is cut at its end; `title` says all.
 * @param {object} library
 * @param {string} slide
 * @returns {{label: string, choices: {value: string, text: string, title: string}[]}[]}
 */
export function choicesFor(library, slide) {
  const entries = evidenceOf(library, slide);
  const groups = [];
  const runs = library.runs.filter((run) => entries.some((entry) => entry.run === run.id));
  const names = shortNames(runs);
  const choice = (parts) => {
    const value = parts.map(({ id }) => id).join("~");
    const either = (of) => [...new Set(parts.map(of))].join(" − ");
    const text = `${either(({ target }) => target)} · ${either(({ run }) => names.get(run))}`;
    return { value, text, title: describe(library, value).title };
  };
  for (const run of runs) groups.push({ label: run.name, choices: entries.filter((entry) => entry.run === run.id).map((entry) => choice([entry])) });
  const pairs = entries.flatMap((one) => entries.filter((other) => other !== one).map((other) => [one, other]));
  const betweenRuns = pairs.filter(([one, other]) => one.run !== other.run && one.target === other.target);
  const betweenTargets = pairs.filter(([one, other]) => one.run === other.run);
  for (const [label, some] of [["Difference of runs", betweenRuns], ["Difference of targets", betweenTargets]]) {
    if (some.length > 0) groups.push({ label, choices: some.slice(0, MOST_DIFFERENCES).map(choice) });
  }
  return groups;
}

/** Targets that a slide's explanations have, in the library's order. @param {object} library @param {string} slide */
export function targetsOf(library, slide) {
  return [...new Set(evidenceOf(library, slide).map((entry) => entry.target))];
}

/**
 * The same panes with another target: each keeps its run, or its difference of runs. Panes that lack the target stay.
 * @param {object} library
 * @param {object[]} panes
 * @param {string} target
 */
export function withTarget(library, panes, target) {
  const find = (id) => {
    const entry = library.evidence.find((one) => one.id === id);
    return library.evidence.find((one) => one.run === entry?.run && one.slide === entry.slide && one.target === target && isOpen(one));
  };
  return panes.map((pane) => {
    if (pane.evidence === null) return pane;
    const parts = partsOf(pane.evidence).map(find);
    if (parts.some((part) => part === undefined) || new Set(parts).size < parts.length) return pane;
    return { ...pane, evidence: parts.map((part) => part.id).join("~") };
  });
}

/** The target that all panes with one target show, or null. @param {object} library @param {object[]} panes */
export function sharedTarget(library, panes) {
  const shown = new Set(panes.filter((pane) => pane.evidence !== null).map((pane) => describe(library, pane.evidence)?.target));
  return shown.size === 1 ? [...shown][0] : null;
}

/**
 * So many panes: the first of those there are, and then what is not yet shown of the slide: explanations, then a difference of two.
 * @param {object} library
 * @param {object[]} panes
 * @param {number} many
 * @param {string} slide
 */
export function withCount(library, panes, many, slide) {
  const next = panes.slice(0, many);
  while (next.length < many) {
    const fresh = evidenceOf(library, slide).find((entry) => !next.some((pane) => pane.evidence === entry.id));
    const difference = fresh === undefined ? withDifference(library, next) : null;
    if (fresh !== undefined) next.push(heatPane(slide, fresh.id));
    else if (difference !== null) next.push(difference.at(-1));
    else next.push(next.length > 0 ? { ...next[next.length - 1] } : slidePane(slide));
  }
  return next;
}

/** The explanation `by` steps on among those of the pane's slide; the slide alone is one of them. @param {object} library */
export function stepped(library, pane, by) {
  const all = [null, ...evidenceOf(library, pane.slide).map((entry) => entry.id)];
  const at = Math.max(0, all.indexOf(pane.evidence));
  return showing(pane, all[(at + by + all.length) % all.length]);
}

/**
 * Panes with one more: the difference of the first two explanations that they show of one slide. The last pane makes room if there are
 * four. null where there are no two, or their difference is shown.
 * @param {object} library
 * @param {object[]} panes
 */
export function withDifference(library, panes) {
  const single = panes.filter((pane) => pane.evidence !== null && partsOf(pane.evidence).length === 1);
  const first = single[0];
  const second = single.find((pane) => pane.slide === first.slide && pane.evidence !== first.evidence);
  if (second === undefined) return null;
  const evidence = `${first.evidence}~${second.evidence}`;
  if (panes.some((pane) => pane.evidence === evidence)) return null;
  return [...panes.slice(0, 3), { ...first, evidence, mode: "heat" }];
}
