// The panes of the page, one to four, or two under a curtain: what state.panes says, all of one place.

import { createCurtain } from "./curtain.js";
import { element } from "../base/dom.js";
import { fitting } from "./geometry.js";
import { createHeatSource } from "./heat_source.js";
import { createPane } from "./pane.js";
import { shareRequests } from "./shared_requests.js";
import { createCamera } from "./sync.js";

const TELL_MS = 120;
const ZOOM_MS = 160;
const KEPT_TILES = 300; // JPEGs of some 15 kB

/**
 * Makes `app.panes`: `list()`, `flyTo(box_um)`, `on(event, run)`, `camera`.
 * @param {object} app
 */
export function createPanes(app) {
  const { store } = app;
  const home = element("div", { class: "panes" });
  const camera = createCamera({ isStill: () => matchMedia("(prefers-reduced-motion: reduce)").matches });
  const heats = createHeatSource(app);
  const infos = createInfos(app);
  const listeners = { change: new Set(), view: new Set(), hover: new Set(), press: new Set() };
  let panes = []; // of the state
  let under = null; // under a curtain over a single pane: its slide alone
  let withMiniMap = true;
  let whole = null; // {box, view}: what is shown whole, and the view that does
  let changed = false;
  const curtain = createCurtain(app, home);

  function emit(event, detail) {
    if (event === "change") {
      settle();
      if (changed) return;
      changed = true;
      queueMicrotask(() => {
        changed = false;
        for (const listener of listeners.change) listener();
      });
      return;
    }
    if (event === "view" && detail.pane === under) return;
    if (event === "hover") point(detail);
    for (const listener of listeners[event]) listener(detail);
  }

  const slideTile = shareRequests((path, options) => app.transport.blob(path, options), KEPT_TILES);
  const shared = { camera, heats, infos, slideTile, emit };
  const all = () => (under === null ? panes : [under, ...panes]);

  /** What the cursor is at, in all panes of that slide; with a mark where the cursor itself is not. */
  function point(at) {
    for (const pane of all()) {
      const isOf = at !== null && pane.slide !== null && pane.slide.id === at.pane.slide?.id;
      pane.pointAt(isOf ? at : null, isOf && pane !== at.pane && !isStacked());
    }
  }

  const isStacked = () => store.get().layout === "curtain";

  function rebuild() {
    const wanted = store.get().panes.slice(0, 4);
    while (panes.length > wanted.length) panes.pop().destroy();
    while (panes.length < wanted.length) panes.push(add(panes.length));
    const needsUnder = isStacked() && wanted.length === 1;
    if (needsUnder && under === null) {
      under = add(0);
      home.prepend(under.element);
    }
    if (!needsUnder && under !== null) {
      under.destroy();
      under = null;
    }
    under?.update({ ...wanted[0], mode: "slide", evidence: null });
    panes.forEach((pane, i) => pane.update(wanted[i]));
    arrange();
    emit("change");
  }

  function add(index) {
    const pane = createPane(app, shared, index);
    home.append(pane.element);
    observer.observe(pane.element);
    return pane;
  }

  function arrange() {
    const stacked = isStacked();
    const two = stacked ? all().slice(0, 2) : [];
    home.dataset.layout = stacked ? "curtain" : "grid";
    home.dataset.count = String(panes.length);
    all().forEach((pane) => {
      pane.element.hidden = stacked && !two.includes(pane);
      pane.element.dataset.side = two[0] === pane ? "left" : two[1] === pane ? "right" : "";
      // One overview for each slide: panes of one slide all show the same place.
      const isFirst = all().find((other) => !other.element.hidden && other.state().slide === pane.state().slide) === pane;
      pane.showMiniMap(withMiniMap && (isFirst || two[1] === pane));
      pane.element.dataset.active = String(panes.length > 1 && panes[store.get().active] === pane);
    });
    fitAll();
  }

  function fitAll() {
    for (const pane of all()) pane.fit();
    const upper = isStacked() ? (all()[1] ?? null) : null;
    // Alone, it keeps the pointer on both sides: only its pictures are cut.
    curtain.show(upper?.frame ?? null, under === null ? [upper?.frame] : upper.pictures);
    settle();
    // What is seen whole stays so in panes of another size.
    if (whole !== null && whole.view === camera.target() && fit(whole.box, 0)) whole.view = camera.target();
  }

  const active = () => panes[store.get().active] ?? panes[0] ?? null;

  /** Limits of the camera; and a first view, if there is none yet. */
  function settle() {
    const seen = all().filter((pane) => pane.slide !== null && pane.size.width > 0);
    if (seen.length === 0) return;
    const [width, height] = ["width", "height"].map((side) => Math.min(...seen.map((pane) => pane.size[side])));
    const [w, h] = [0, 1].map((axis) => Math.max(...seen.map((pane) => pane.slide.size_um[axis])));
    camera.limit({
      box: [0, 0, w, h],
      finest: Math.min(...seen.flatMap((pane) => pane.slide.mpp)) / 32,
      coarsest: 3 * Math.max(w / width, h / height),
    });
    if (camera.get() !== null) return;
    const { view } = store.get();
    const first = active();
    if (view !== null) camera.go(view);
    else if (first?.slide) showWhole(0);
  }

  function smallest() {
    const seen = all().filter((pane) => !pane.element.hidden && pane.size.width > 0);
    return ["width", "height"].map((side) => Math.min(...seen.map((pane) => pane.size[side])));
  }

  function showWhole(ms) {
    const slide = active()?.slide;
    if (!slide || !fit([0, 0, ...slide.size_um], ms)) return;
    whole = { box: [0, 0, ...slide.size_um], view: camera.target() };
  }

  /** Show a box (um) whole in every pane; false if there is no room for any. */
  function fit(box, ms) {
    const [width, height] = smallest();
    if (!Number.isFinite(width)) return false;
    const view = fitting(box, width, height, camera.get()?.rotation ?? 0);
    const before = camera.target();
    if (["x", "y", "scale", "rotation"].every((key) => before?.[key] === view[key])) return true;
    camera.go(view, ms);
    return true;
  }

  // The state hears of the view at rest, and now and then on the way; what others put there is shown at once.
  let told = null;
  let timer = null;
  let since = 0;
  function tell() {
    clearTimeout(timer);
    timer = null;
    since = performance.now();
    told = camera.get();
    if (told !== null) store.set({ view: told });
  }
  const stops = [
    camera.on(() => {
      for (const pane of all()) pane.apply();
      clearTimeout(timer);
      timer = setTimeout(tell, performance.now() - since > 400 ? 0 : TELL_MS);
    }),
    store.subscribe(["panes"], rebuild), // before the view: what is to be shown whole is the new slide
    store.subscribe(["view"], ({ view }) => {
      if (view === told) return;
      clearTimeout(timer);
      told = view;
      if (view !== null) return camera.go(view);
      camera.forget();
      settle();
    }),
    store.subscribe(["layout", "active"], () => rebuild()),
    store.subscribe(["colour"], () => all().forEach((pane) => pane.recolour())),
    store.subscribe(["library"], () => {
      infos.forget();
      all().forEach((pane) => pane.retry());
    }),
  ];
  // A window that moves to a screen of another density need not change its size.
  let density = null;
  function watchDensity() {
    density?.removeEventListener("change", watchDensity);
    density = matchMedia(`(resolution: ${globalThis.devicePixelRatio || 1}dppx)`);
    density.addEventListener("change", watchDensity);
    for (const pane of all()) pane.recolour();
  }
  watchDensity();
  const observer = new ResizeObserver(fitAll);
  observer.observe(home);

  const group = "View";
  const onSlide = () => store.get().page === "slide" && camera.get() !== null;
  const command = (id, key, label, run) => app.commands.add({ id, key, label, group, enabled: onSlide, run });
  const pan = (dx, dy) => () => {
    const [width, height] = smallest();
    camera.pan((dx * width) / 5, (dy * height) / 5, ZOOM_MS);
  };
  const removals = [
    command("pan-left", "ArrowLeft", "Move left", pan(-1, 0)),
    command("pan-right", "ArrowRight", "Move right", pan(1, 0)),
    command("pan-up", "ArrowUp", "Move up", pan(0, -1)),
    command("pan-down", "ArrowDown", "Move down", pan(0, 1)),
    command("nudge-left", "Shift+ArrowLeft", "Move left by a few pixels", () => camera.pan(-4, 0)),
    command("nudge-right", "Shift+ArrowRight", "Move right by a few pixels", () => camera.pan(4, 0)),
    command("nudge-up", "Shift+ArrowUp", "Move up by a few pixels", () => camera.pan(0, -4)),
    command("nudge-down", "Shift+ArrowDown", "Move down by a few pixels", () => camera.pan(0, 4)),
    command("zoom-in", ["+", "="], "Zoom in", () => camera.zoom(1 / 1.5, null, ZOOM_MS)),
    command("zoom-out", ["-", "_"], "Zoom out", () => camera.zoom(1.5, null, ZOOM_MS)),
    command("zoom-whole", "0", "Show the whole slide", () => showWhole(300)),
    command("zoom-finest", "z", "Zoom to the slide's own pixels", () => {
      const slide = active()?.slide;
      if (slide) camera.zoom((Math.min(...slide.mpp) / camera.target().scale) * (globalThis.devicePixelRatio || 1), null, 300);
    }),
    command("turn-right", "r", "Turn by 90°", () => camera.turn(90, 200)),
    command("turn-left", "Shift+R", "Turn back by 90°", () => camera.turn(-90, 200)),
    command("turn-little", "Alt+r", "Turn by 15°", () => camera.turn(15, ZOOM_MS)),
    command("turn-none", "Alt+0", "Turn upright", () => camera.go({ ...camera.target(), rotation: 0 }, 200)),
    command("read-centre", "v", "Read the value at the centre", () => void readCentre()),
    command("mini-map", "m", "Show or hide the overview", () => {
      withMiniMap = !withMiniMap;
      arrange();
    }),
  ];

  async function readCentre() {
    const pane = active();
    if (pane === null) return;
    const { x, y } = camera.target();
    camera.go(camera.target());
    const at = { x_um: x, y_um: y };
    for (const other of all()) if (other.slide?.id === pane.slide?.id) other.pointAt(at, true);
    try {
      app.announce(await pane.readout.read(at));
    } catch (error) {
      app.fail(error);
    }
  }

  const api = {
    element: home,
    camera,
    /** The panes of the state, in order. */
    list: () => [...panes],
    /** Show a box (um) whole in every pane. */
    flyTo(box) {
      fit(box, 450);
    },
    /** Hear of "change", "view", "hover", "press". @returns {function()} */
    on(event, run) {
      listeners[event].add(run);
      return () => listeners[event].delete(run);
    },
    destroy() {
      clearTimeout(timer);
      observer.disconnect();
      density.removeEventListener("change", watchDensity);
      for (const stop of [...stops, ...removals]) stop();
      for (const pane of all()) pane.destroy();
      panes = [];
      under = null;
      curtain.destroy();
      heats.destroy();
      infos.forget();
      camera.destroy();
      home.remove();
    },
  };
  app.panes = api;
  rebuild();
  return api;
}

/** What the server says of slides and explanations, asked once. */
function createInfos(app) {
  let known = new Map();
  const ask = (path) => {
    let answer = known.get(path);
    if (answer === undefined) {
      answer = app.transport.json(path);
      known.set(path, answer);
      answer.catch(() => known.get(path) === answer && known.delete(path));
    }
    return answer;
  };
  return {
    slide: (id) => ask(`api/slides/${id}`),
    evidence: (id) => ask(`api/evidence/${id}`),
    forget: () => (known = new Map()),
  };
}
