// The viewer, put together in a root element: a page of its own, or a notebook's cell. Nothing outside the root is touched.

import { createBlind } from "./frame/blind.js";
import { createCommands } from "./base/commands.js";
import { element } from "./base/dom.js";
import { createHelp } from "./base/help.js";
import { createLink } from "./frame/link.js";
import { createListPage } from "./list/list_page.js";
import { createNavigation } from "./frame/navigation.js";
import { createNotices } from "./base/notices.js";
import { createPanes } from "./panes/panes.js";
import { COLOUR, createStore, INITIAL } from "./base/store.js";
import { createTheme } from "./base/theme.js";
import { createToolbar } from "./frame/toolbar.js";
import { createTools } from "./tools/tools.js";
import { watched } from "./base/transport.js";

/**
 * Start a viewer.
 *
 * What every part is made with is `app`:
 * - `root`, `store`, `transport`, `OpenSeadragon`, `options`, `commands`;
 * - `library`: the answer of api/library, fresh after `app.reload()`; state `library` changes with it;
 * - `stage`, `side`, `bar`: elements for the panes, the side panels, and the header; a part's `element` is put in its place if the part
 *   did not do so itself;
 * - `announce(text)` tells screen readers, `notify(text, {kind, key, action})` shows a line, `fail(error)` shows an Error's (aborted
 *   requests are not errors);
 * - `openSlide(id)`, `openList()`, `panes` (made by panes.js).
 *
 * @param {HTMLElement} root an empty element, at least as large as what shall be seen
 * @param {object} setting
 * @param {object} setting.transport `json`, `bytes`, `blob`: see transport.js
 * @param {object} setting.OpenSeadragon
 * @param {object} [setting.options] `link`: keep the view in the address; `state`: values of the store to begin with
 * @returns {Promise<object>} app, whose `destroy()` ends it; also `root.viewer`
 */
export async function start(root, { transport, OpenSeadragon, options = {} }) {
  const made = [];
  const panel = root.clientWidth < 1200 ? null : INITIAL.panel; // in a narrow cell slides come first
  const store = createStore({ ...INITIAL, panel, library: null, ...options.state });
  const app = { root, store, OpenSeadragon, options: { link: false, ...options }, panes: null };
  root.viewer = app;
  root.classList.add("viewer");
  root.dataset.page = store.get().page;
  if (root.tabIndex < 0 && root !== root.ownerDocument.body) root.tabIndex = -1; // a click in a cell gives it the keys

  const notices = createNotices(root);
  made.push(notices);
  app.announce = notices.announce;
  app.notify = notices.say;
  app.clear = notices.clear;
  app.fail = (error) => {
    if (error?.name === "AbortError") return;
    if (error?.status === 0) return; // said once, below
    if (!(error instanceof Error) || error.status === undefined) reportError(error); // a fault of ours: for the console too
    notices.say(error?.message ?? String(error));
  };
  app.transport = watched(transport, (answers) => (answers ? found() : lost()));
  let retry = null;
  function lost() {
    const text = "The server does not answer. What is on the screen stays; start pathology view again, or wait.";
    notices.say(text, { key: "server", action: { label: "Try again", run: tryAgain } });
    retry = setInterval(tryAgain, 5000);
  }
  function found() {
    clearInterval(retry);
    notices.say("The server answers again.", { key: "server", kind: "note" });
  }
  const tryAgain = () => app.transport.json("api/library").catch(() => {});
  made.push({ destroy: () => clearInterval(retry) });

  // OpenSeadragon puts a style sheet into the document unless it finds one of this name; an element of no namespace is enough.
  const placeholder = document.createElementNS("", "style");
  placeholder.setAttribute("data-openseadragon-mobile-css", "true");
  app.bar = element("header", { class: "bar" });
  app.stage = element("main", { class: "stage", "aria-label": "Slides" });
  app.side = element("aside", { class: "side", "aria-label": "Evidence in numbers" });
  const waiting = element("p", { class: "waiting", role: "status", text: "Reading the list of slides…" });
  root.append(placeholder, app.bar, waiting);
  quieten(OpenSeadragon);

  Object.defineProperty(app, "library", { get: () => store.get().library });
  app.reload = async () => {
    const library = await app.transport.json("api/library");
    store.set({ library });
    return library;
  };
  app.destroy = () => {
    for (const part of made.reverse()) part?.destroy?.();
    root.replaceChildren();
    root.classList.remove("viewer");
    delete root.viewer;
  };

  app.commands = createCommands(app);
  made.push(app.commands, createTheme(app));
  try {
    await app.reload();
  } catch (error) {
    waiting.textContent = `The list of slides cannot be read: ${error.message}`;
    return app;
  }
  waiting.remove();
  store.set({ colour: { ...COLOUR, ...options.state?.colour, limits: { ...app.library.limits, ...options.state?.colour?.limits } } });
  const mount = (part, home) => {
    made.push(part);
    if (part?.element && !part.element.isConnected) home.append(part.element);
    return part;
  };
  const body = element("div", { class: "body" }, app.stage, app.side);
  root.append(body);
  made.push(createNavigation(app), createHelp(app));
  mount(createListPage(app), root);
  const toolbar = mount(createToolbar(app), app.bar);
  const panes = mount(createPanes(app), app.stage);
  app.panes ??= panes;
  toolbar.placeBars();
  mount(createTools(app), app.side);
  mount(createBlind(app), app.side);
  made.push(createLink(app));
  if (store.get().page === "list" && app.library.slides.length === 1 && app.library.slides[0].problem === null) {
    app.openSlide(app.library.slides[0].id);
  }
  return app;
}

const quietened = new WeakSet();

/** OpenSeadragon warns of each tile that comes after its slide was closed, which is as it should be. */
function quieten(OpenSeadragon) {
  if (quietened.has(OpenSeadragon)) return;
  quietened.add(OpenSeadragon);
  const loud = OpenSeadragon.console;
  const warn = (text, ...rest) => {
    if (!String(text).startsWith("Ignoring tile")) loud.warn(text, ...rest);
  };
  OpenSeadragon.console = Object.assign(Object.create(loud), { warn });
}
