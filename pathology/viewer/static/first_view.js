// What a slide opens with: the slide as it is, beside what there is to say about it.

import { evidenceOf } from "./names.js";

/** A pane that shows only the slide. @param {string} slide */
export function slidePane(slide) {
  return { slide, evidence: null, map: "heatmap", mode: "slide", opacity: 0.6 };
}

/** A pane with the heat of an explanation over its slide. @param {string} slide @param {string} evidence */
export function heatPane(slide, evidence) {
  return { slide, evidence, map: "heatmap", mode: "overlay", opacity: 0.6 };
}

/**
 * Panes for a slide: slide | overlay; with several runs of one target slide | first run | second run; only the slide if there is
 * nothing to show, or blind mode hides it. A comparison keeps to the target of the highest score.
 * @param {object} library
 * @param {string} slide
 * @returns {object[]}
 */
export function firstPanes(library, slide) {
  const entries = evidenceOf(library, slide);
  if (entries.length === 0) return [slidePane(slide)];
  const best = entries.reduce((one, other) => ((other.score ?? -Infinity) > (one.score ?? -Infinity) ? other : one));
  const runs = library.runs.map((run) => entries.find((entry) => entry.run === run.id && entry.target === best.target));
  const shown = runs.filter((entry) => entry !== undefined).slice(0, 2);
  return [slidePane(slide), ...shown.map((entry) => heatPane(slide, entry.id))];
}
