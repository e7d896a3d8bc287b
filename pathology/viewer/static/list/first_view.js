// What a slide opens with: the slide as it is, beside what there is to say about it.

import { evidenceOf } from "../base/names.js";

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
 * nothing to show, or blind mode hides it. Of several targets it is the one that most runs explain, and of these the one of the highest
 * score.
 * @param {object} library
 * @param {string} slide
 * @returns {object[]}
 */
export function firstPanes(library, slide) {
  const targets = Map.groupBy(evidenceOf(library, slide), (entry) => entry.target);
  const highest = (entries) => Math.max(...entries.map((entry) => entry.score ?? -Infinity));
  const [entries = []] = [...targets.values()].sort((one, other) => other.length - one.length || highest(other) - highest(one));
  return [slidePane(slide), ...entries.slice(0, 2).map((entry) => heatPane(slide, entry.id))];
}
