// Which slides a list shows, and in which order.

/** How the list begins. */
export const LIST = Object.freeze({ find: "", label: "", show: "all", sort: "name", descending: false });

/** What `show` may be, with its words. */
export const SHOWN = Object.freeze({
  all: "All slides",
  explained: "Explained",
  unexplained: "Not explained",
  open: "Ledger does not close",
  problem: "With a problem",
  unread: "To be read",
});

/**
 * The explanations' columns: a pair of run and target each, in the order of the runs.
 * @param {object} library
 * @returns {{key: string, run: object, target: string}[]}
 */
export function scoreColumns(library) {
  const columns = new Map();
  for (const run of library.runs) {
    for (const entry of library.evidence) {
      if (entry.run !== run.id || entry.target === null) continue; // hidden, or damaged
      const key = `${run.id}/${entry.target}`;
      if (!columns.has(key)) columns.set(key, { key, run, target: entry.target });
    }
  }
  return [...columns.values()];
}

/** Names of labels that some slide has, as in the manifest. @param {object} library @returns {string[]} */
export function labelColumns(library) {
  const names = new Set();
  for (const { labels } of library.slides) {
    for (const [name, value] of Object.entries(labels ?? {})) if (value !== "" && value !== null) names.add(name);
  }
  return [...names];
}

/**
 * A library as rows `{slide, entries: Map(column key -> explanation), isHidden, problems}`: whether blind mode hides explanations of
 * the slide, and what is wrong with it or with them.
 * @param {object} library
 * @returns {object[]}
 */
export function rowsOf(library) {
  const rows = new Map(
    library.slides.map((slide) => [
      slide.id,
      { slide, entries: new Map(), isHidden: false, problems: slide.problem ? [slide.problem] : [] },
    ]),
  );
  for (const entry of library.evidence) {
    const row = rows.get(entry.slide);
    if (row === undefined) continue;
    if (entry.hidden) row.isHidden = true;
    else if (entry.problem) row.problems.push(`an explanation cannot be shown: ${entry.problem}`);
    else row.entries.set(`${entry.run}/${entry.target}`, entry);
  }
  return [...rows.values()];
}

/**
 * Rows as the list asks for them. `sort` is "name", "label:NAME" or "score:RUN/TARGET"; slides without a value come last either way.
 * @param {object[]} rows
 * @param {object} list as LIST
 * @returns {object[]}
 */
export function arranged(rows, list) {
  const words = list.find.toLowerCase().split(/\s+/).filter(Boolean);
  const cut = list.label.indexOf("=");
  const [name, wanted] = [list.label.slice(0, cut), list.label.slice(cut + 1)];
  const kept = rows.filter(({ slide, entries, isHidden, problems }) => {
    const text = [slide.name, ...Object.values(slide.labels ?? {})].join(" ").toLowerCase();
    if (!words.every((word) => text.includes(word))) return false;
    if (cut > 0 && String(slide.labels?.[name] ?? "") !== wanted) return false;
    const all = [...entries.values()];
    if (list.show === "explained") return all.length > 0 || isHidden;
    if (list.show === "unexplained") return all.length === 0 && !isHidden;
    if (list.show === "open") return all.some((entry) => entry.is_closed === false);
    if (list.show === "problem") return problems.length > 0;
    if (list.show === "unread") return !slide.committed;
    return true;
  });
  const value = valueOf(list.sort);
  const sign = list.descending ? -1 : 1;
  const order = new Intl.Collator("en", { numeric: true }).compare;
  return kept.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    const missing = (a === null) - (b === null);
    if (missing !== 0) return missing;
    const by = a === null ? 0 : typeof a === "number" ? a - b : order(a, b);
    return sign * by || order(one.slide.name, other.slide.name);
  });
}

function valueOf(sort) {
  const at = sort.indexOf(":");
  const [kind, key] = [sort.slice(0, at), sort.slice(at + 1)];
  if (kind === "label") return ({ slide }) => String(slide.labels?.[key] ?? "") || null;
  if (kind === "score") return ({ entries }) => entries.get(key)?.score ?? null;
  return ({ slide }) => slide.name;
}
