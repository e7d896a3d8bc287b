// From the list to a slide and back, and from slide to slide.

import { firstPanes } from "../list/first_view.js";
import { slideOf } from "../base/names.js";

/**
 * Gives app `openSlide(id, panes)`, `openList()`, `order` (ids as the list shows them), and `focusPane()`, which keeps the focus in the
 * viewer when what had it goes away: a cell would not hear keys any more.
 * @param {object} app
 */
export function createNavigation(app) {
  const { store, commands } = app;
  app.order = app.library.slides.map((slide) => slide.id);

  app.focusPane = () => {
    if (!app.root.contains(app.root.getRootNode().activeElement)) return; // it is somewhere else
    requestAnimationFrame(() => {
      const { active, page } = store.get();
      if (page === "slide") app.panes.list().find((pane) => pane.index === active)?.stage.focus({ preventScroll: true });
    });
  };

  app.openSlide = (id, panes = firstPanes(app.library, id)) => {
    const slide = slideOf(app.library, id);
    if (slide === null) return app.notify("There is no such slide here.");
    if (slide.problem) return app.notify(`${slide.name}: ${slide.problem}`);
    if (app.panes !== null) app.focusPane();
    store.set({
      page: "slide",
      slide: id,
      panes,
      active: Math.max(0, panes.findIndex((pane) => pane.evidence !== null)), // what there are keys and panels for
      layout: "grid",
      view: null,
      regions: [],
      selected: null,
      tile: null,
    });
    app.announce(`Slide ${slide.name}`);
  };
  app.openList = () => {
    store.set({ page: "list" });
    app.announce("List of slides");
  };

  function step(by) {
    const fine = app.order.filter((id) => !slideOf(app.library, id)?.problem);
    const at = fine.indexOf(store.get().slide);
    const next = fine[at + by];
    if (at >= 0 && next !== undefined) app.openSlide(next);
    else app.announce(by > 0 ? "This is the last slide." : "This is the first slide.");
  }

  const group = "Slides";
  commands.add({ id: "list", key: "u", label: "Back to the list of slides", group, run: app.openList });
  commands.add({ id: "next", key: "]", label: "Next slide", group, run: () => step(1) });
  commands.add({ id: "previous", key: "[", label: "Previous slide", group, run: () => step(-1) });

  const showPage = ({ page }) => (app.root.dataset.page = page);
  const stop = store.subscribe(["page"], showPage);
  showPage(store.get());
  return { destroy: stop };
}
