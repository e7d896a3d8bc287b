// What slides, runs and explanations are called on the page, by their ids.

/** The slide of an id, or null. @param {object} library @param {string} id */
export function slideOf(library, id) {
  return library.slides.find((slide) => slide.id === id) ?? null;
}

/** The two explanations of a difference `A~B`, or the one. @param {string} id @returns {string[]} */
export function partsOf(id) {
  return id.split("~");
}

/**
 * What an explanation, or a difference of two, is of: `{run, target, title, slide, score, isOpen}`; null if the library lacks it.
 * @param {object} library
 * @param {string} id
 */
export function describe(library, id) {
  const parts = partsOf(id).map((part) => library.evidence.find((entry) => entry.id === part));
  if (parts.length > 2 || parts.some((part) => part === undefined)) return null;
  const runs = parts.map((part) => library.runs.find((run) => run.id === part.run)?.name ?? part.run);
  const [first, second] = parts;
  if (second === undefined) {
    const { target, slide, score } = first;
    return { run: runs[0], target, title: `${runs[0]}: ${target}`, slide, score, isOpen: isOpen(first) };
  }
  const sameRun = first.run === second.run;
  const areKnown = Number.isFinite(first.score) && Number.isFinite(second.score);
  const score = areKnown ? first.score - second.score : null;
  return {
    run: sameRun ? runs[0] : `${runs[0]} − ${runs[1]}`,
    target: first.target === second.target ? first.target : `${first.target} − ${second.target}`,
    title: sameRun
      ? `${runs[0]}: ${first.target} − ${second.target}`
      : `${runs[0]}: ${first.target} − ${runs[1]}: ${second.target}`,
    slide: first.slide,
    score,
    isOpen: isOpen(first) && isOpen(second) && first.slide === second.slide,
  };
}

/** Whether an explanation can be shown: not hidden by blind mode, and not damaged. @param {object} entry */
export function isOpen(entry) {
  return !entry.hidden && !entry.problem;
}

/**
 * The map that is shown of an explanation: the one that was asked for, else its first; null if there is none.
 * @param {object|null} evidence answer of api/evidence/ID
 * @param {string} name
 */
export function mapOf(evidence, name) {
  return evidence?.maps.find((one) => one.name === name) ?? evidence?.maps[0] ?? null;
}

/** Explanations of a slide that can be shown, in the library's order. @param {object} library @param {string} slide */
export function evidenceOf(library, slide) {
  return library.evidence.filter((entry) => entry.slide === slide && isOpen(entry));
}
