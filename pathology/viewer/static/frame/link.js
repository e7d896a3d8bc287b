// The address follows the view, and the view the address: what is on the screen can be sent to someone who has the same library.

import { firstPanes } from "../list/first_view.js";
import { parsed, regionsWritten, written } from "./link_text.js";

const KEYS = [
  "page", "slide", "panes", "active", "layout", "curtain", "view", "colour", "regions", "selected", "tile", "panel", "list",
];
const WAIT_MS = 250; // browsers refuse an address that changes with every frame

/** Links of the view; does nothing where `options.link` is not set, as in a notebook. @param {object} app */
export function createLink(app) {
  const { store, commands } = app;
  if (!app.options.link) return { destroy() {} };
  let timer = null;
  let last = location.hash.slice(1);
  let place = null; // page and slide that the entry in the history is of

  function write() {
    clearTimeout(timer);
    timer = null;
    const state = store.get();
    const text = written(state);
    const now = `${state.page} ${state.page === "slide" ? state.slide : ""}`;
    if (text === last && now === place) return;
    const address = `${location.pathname}${location.search}${text ? `#${text}` : ""}`;
    if (place === null || now === place) history.replaceState(null, "", address);
    else history.pushState(null, "", address);
    [last, place] = [text, now];
  }

  const stop = store.subscribe(KEYS, (state, changed) => {
    if (changed.has("page") || changed.has("slide")) write(); // before anything else goes into this entry
    timer ??= setTimeout(write, WAIT_MS);
  });

  function read() {
    const text = location.hash.slice(1);
    if (text === last && place !== null) return;
    clearTimeout(timer);
    timer = null;
    const { patch, problems } = parsed(text, app.library);
    if (patch.page === "slide" && patch.panes.length === 0) {
      patch.panes = firstPanes(app.library, patch.slide);
      patch.active = Math.max(0, patch.panes.findIndex((pane) => pane.evidence !== null));
    }
    [last, place] = [text, `${patch.page} ${patch.slide ?? ""}`];
    store.set(patch);
    if (problems.length > 0) {
      const shown = problems.slice(0, 3).join(", ");
      const more = problems.length > 3 ? ` and ${problems.length - 3} more` : "";
      app.notify(`The link asks for what is not here: ${shown}${more}. The rest of it is shown.`, { key: "link" });
    } else app.clear("link");
  }

  addEventListener("popstate", read);
  addEventListener("hashchange", read);
  if (last !== "") read();
  else write();

  const remove = commands.add({
    id: "link",
    key: "y",
    label: "Copy a link to this view",
    group: "Page",
    page: "any",
    async run() {
      write();
      try {
        await navigator.clipboard.writeText(location.href);
        const { regions } = store.get();
        const without = regions.length - regionsWritten(regions).length;
        const text = without === 0 ? "" : `, without ${without} of ${regions.length} regions, which have too many points`;
        app.notify(`The link to this view is copied${text}.`, { kind: "note", key: "copied" });
      } catch {
        app.notify("The browser does not let the link be copied; it is in the address bar.", { kind: "note", key: "copied" });
      }
    },
  });
  return {
    destroy() {
      clearTimeout(timer);
      stop();
      remove();
      removeEventListener("popstate", read);
      removeEventListener("hashchange", read);
    },
  };
}
