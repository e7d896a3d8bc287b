// Which explanations and which slide the panes show, with names to call them.

import { describe } from "./names.js";

/** The pane that keys and panels speak of. */
export function activePane(app) {
  const panes = app.panes.list();
  return panes[app.store.get().active] ?? panes[0] ?? null;
}

/** Whether panes know what place they show; not before the first slide is there, and not between two. */
export function isPlaced(app) {
  return app.panes.camera.get() !== null;
}

/** Id of the slide that panels speak of: the active pane's. */
export function activeSlide(app) {
  const { panes, active, slide } = app.store.get();
  return panes?.[active]?.slide ?? slide ?? null;
}

const lastPart = (run) => run?.split(" − ").map((name) => name.split("/").at(-1)).join(" − ");

/**
 * Explanations of the active slide in any pane, once each, in the panes' order: `[{id, name, short, pane}]`; `short` tells them
 * apart, by their panes where there are many; `pane` is "Pane 2".
 */
export function shownEvidence(app) {
  const slide = activeSlide(app);
  const panes = app.store.get().panes ?? [];
  const ids = panes.filter((pane) => pane.slide === slide && pane.evidence).map((pane) => pane.evidence);
  const told = [...new Set(ids)].map((id) => ({ id, name: nameOf(app, id), ...describe(app.library, id) }));
  const shorts = [
    told.map(({ run }) => lastPart(run)), told.map(({ run }) => run), told.map(({ target }) => target), told.map(({ name }) => name),
  ];
  const best = shorts.find((names) => names.every(Boolean) && new Set(names).size === names.length) ?? shorts.at(-1);
  const inPane = (id) => `Pane ${panes.findIndex((pane) => pane.evidence === id) + 1}`;
  return told.map(({ id, name }, i) => ({ id, name, short: told.length > 2 ? inPane(id) : best[i], pane: inPane(id) }));
}

/** The explanation that a tool with room for one speaks of: the active pane's, else the first shown. */
export function activeEvidence(app) {
  const { panes, active } = app.store.get();
  return panes?.[active]?.evidence ?? shownEvidence(app)[0]?.id ?? null;
}

/** What an explanation, or a difference of two, is called. */
export function nameOf(app, id) {
  return describe(app.library, id)?.title ?? id;
}
