// Which explanations and which slide the panes show, with names to call them.

import { describe } from "./names.js";

/** The pane that keys and panels speak of. */
export function activePane(app) {
  const panes = app.panes.list();
  return panes[app.store.get().active] ?? panes[0] ?? null;
}

/** Id of the slide that panels speak of: the active pane's. */
export function activeSlide(app) {
  const { panes, active, slide } = app.store.get();
  return panes?.[active]?.slide ?? slide ?? null;
}

/** Explanations of the active slide in any pane, once each, in the panes' order: `[{id, name}]`. */
export function shownEvidence(app) {
  const slide = activeSlide(app);
  const ids = (app.store.get().panes ?? [])
    .filter((pane) => pane.slide === slide && pane.evidence)
    .map((pane) => pane.evidence);
  return [...new Set(ids)].map((id) => ({ id, name: nameOf(app, id) }));
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
