// One pane: a slide under a map, in OpenSeadragon and a canvas that keep in step frame by frame, with what is written around them.

import { drawing, element } from "../base/dom.js";
import { toScreen, toSlide } from "./geometry.js";
import { attachGestures } from "./gestures.js";
import { createHeatLayer } from "./heat_layer.js";
import { heatMap } from "./heat_source.js";
import { createLegend } from "./legend.js";
import { limitOf } from "../base/limits.js";
import { createMiniMap } from "./mini_map.js";
import { createOutlines } from "./outlines.js";
import { createReadout } from "./readout.js";
import { createScaleBar } from "./scale_bar.js";
import { mapOf } from "../base/names.js";
import { nameOf } from "../base/shown.js";
import { drawSlide, openSeadragonImage } from "./slide_source.js";

const MODES = { slide: "slide", heat: "heatmap", overlay: "heatmap over the slide" };
const REST_MS = 150;
const RETRY_MS = 3000;
const LOADING = { imageLoaderLimit: 6, timeout: 120000, tileRetryMax: 2, tileRetryDelay: 2000 };

/**
 * @param {object} app
 * @param {object} shared `camera`, `heats` (heat source), `infos` ({slide(id), evidence(id)}), `slideTile(path, signal)`, `emit(event, detail)`
 * @param {number} index
 */
export function createPane(app, { camera, heats, infos, slideTile, emit }, index) {
  const { store, OpenSeadragon } = app;
  const title = element("span", { class: "pane-title" });
  const head = element("header", { class: "pane-head" }, title);
  const note = element("p", { class: "pane-note", hidden: true });
  const home = element("div", { class: "pane-slide" });
  const heatCanvas = element("canvas", { class: "pane-heat", "aria-hidden": "true" });
  const svg = drawing("svg", { class: "pane-svg", "aria-hidden": "true" }); // the panels tell what is drawn in it
  const cross = element("div", { class: "pane-cross", hidden: true, "aria-hidden": "true" });
  const message = element("p", { class: "pane-message", role: "status", hidden: true });
  const scaleBar = createScaleBar();
  const miniMap = createMiniMap(app, camera);
  const outlines = createOutlines(app, (isPartial) => tellOfTiles(isPartial ? "Not all tiles are outlined: zoom in." : ""));
  const stage = element(
    "div",
    { class: "pane-stage", role: "application", "aria-roledescription": "slide view", tabIndex: 0 },
    home, heatCanvas, outlines.element, svg, cross, scaleBar.element, miniMap.element, note, message,
  );
  const legend = createLegend();
  const heat = createHeatLayer(heats);
  const frameElement = element("div", { class: "pane-frame" }, stage);
  const foot = element("footer", { class: "pane-foot" }, legend.element);
  const section = element("section", { class: "pane" }, head, frameElement, foot);

  let width = 0;
  let height = 0;
  let slide = null;
  let evidence = null;
  let shown = null; // the pane's part of the state
  let frame = null;
  let rest = null;
  let stopTiles = () => {}; // of the slide
  let again = null; // timer
  let pointed = null; // what the readout is at
  let isDestroyed = false;
  const troubles = { slide: "", evidence: "", tiles: "" };

  const pane = {
    index,
    element: section,
    frame: frameElement,
    pictures: [home, heatCanvas],
    stage,
    svg,
    heat,
    state: () => store.get().panes[index] ?? shown,
    get slide() {
      return slide;
    },
    get evidence() {
      return evidence;
    },
    get size() {
      return { width, height };
    },
    toScreen: (x_um, y_um) => toScreen(camera.get(), width, height, x_um, y_um),
    toSlide: (x, y) => toSlide(camera.get(), width, height, x, y),
    /** What the map holds in view, see heat_layer.js. */
    survey: () => heat.survey(camera.get(), width, height),
    devicePixel: () => (camera.get()?.scale ?? 1) / ratio(),
  };
  const readout = createReadout(app, pane);
  pane.readout = readout;
  stage.append(readout.element);

  const osd = OpenSeadragon({
    element: home,
    tabIndex: -1,
    drawer: "canvas",
    showNavigationControl: false,
    autoResize: false,
    preserveViewport: true,
    visibilityRatio: 0,
    immediateRender: true,
    blendTime: 0,
    animationTime: 0,
    ...LOADING,
    maxImageCacheCount: 300,
    smoothTileEdgesMinZoom: Infinity, // it moves tiles by parts of a pixel
    minZoomImageRatio: 0,
    maxZoomPixelRatio: Infinity,
  });
  osd.setMouseNavEnabled(false); // the camera moves, not OpenSeadragon
  osd.canvas.setAttribute("aria-hidden", "true");
  osd.addHandler("open", () => {
    apply();
    slideOpacity();
  });
  osd.addHandler("open-failed", ({ message: line }) => say("slide", line));
  osd.addHandler("update-viewport", drawNow);
  pane.osd = osd;

  const ratio = () => globalThis.devicePixelRatio || 1;

  function say(what, line) {
    troubles[what] = line;
    message.textContent = Object.values(troubles).filter(Boolean).join(" ");
    message.hidden = message.textContent === "";
  }

  /** Put OpenSeadragon where the camera is. */
  function apply() {
    const view = camera.get();
    if (view === null || width === 0 || !osd.viewport) return;
    const { viewport } = osd;
    if (viewport.getRotation(true) !== view.rotation) viewport.setRotation(view.rotation, true);
    viewport.zoomTo(1 / (width * view.scale), null, true);
    viewport.panTo(new OpenSeadragon.Point(view.x, view.y), true);
    schedule();
  }

  /** Draw at the next frame: OpenSeadragon's own, if it draws then; so that both show the same place. */
  function schedule() {
    frame ??= requestAnimationFrame(drawNow);
  }

  function drawNow() {
    if (frame !== null) cancelAnimationFrame(frame);
    frame = null;
    const view = camera.get();
    if (isDestroyed || view === null || width === 0) return;
    const [w, h] = [Math.round(width * ratio()), Math.round(height * ratio())];
    if (heatCanvas.width !== w) heatCanvas.width = w;
    if (heatCanvas.height !== h) heatCanvas.height = h;
    const withHeat = shown !== null && shown.mode !== "slide" && heat.map() !== null && slide !== null;
    heatCanvas.hidden = !withHeat;
    if (withHeat) {
      const isWhole = heat.draw(heatCanvas.getContext("2d"), view, width, height, ratio(), slide.size_um);
      stage.dataset.heat = isWhole ? "whole" : "loading";
    } else delete stage.dataset.heat;
    placeCross();
    scaleBar.show(view, heat.map() === null || shown?.mode === "slide" ? null : Math.min(...heat.map().pixel));
    miniMap.show(view, width, height);
    drawOutlines(view);
    clearTimeout(rest);
    if (withHeat) rest = setTimeout(() => legend.clipped(pane.survey()), REST_MS);
    emit("view", { pane, view });
  }
  outlines.onChange(schedule);

  function drawOutlines(view) {
    const isAsked = store.get().colour.grid && evidence !== null;
    const hasTiles = isAsked && evidence.tiles !== null;
    outlines.show(hasTiles ? evidence.id : null, slide, view, width, height);
    if (!hasTiles) tellOfTiles(isAsked ? (evidence.tiles_note ?? "There are no tiles to outline.") : "");
  }

  function tellOfTiles(line) {
    note.textContent = line;
    note.hidden = line === "";
  }

  function placeCross() {
    if (cross.hidden || pointed === null) return;
    const { x, y } = pane.toScreen(pointed.x_um, pointed.y_um);
    cross.style.transform = `translate(${x}px, ${y}px)`;
  }

  function slideOpacity() {
    osd.world.getItemAt(0)?.setOpacity(shown?.mode === "heat" ? 0 : 1);
  }

  /** The look of the map now, see colours.lookup. */
  function lookOf(map) {
    const { colour } = store.get();
    return {
      limit: limitOf(app, map.name, map),
      threshold: colour.threshold,
      sign: colour.sign,
      palette: colour.palette,
      signed: map.signed,
      overlay: shown.mode === "overlay",
      smooth: colour.smooth,
    };
  }

  function recolour() {
    const map = heat.map();
    if (map !== null) heat.setLook(lookOf(map));
    const withHeat = map !== null && shown?.mode !== "slide";
    const opacity = shown?.mode === "overlay" ? shown.opacity : 1;
    legend.show(withHeat ? map : null, withHeat ? lookOf(map) : null, opacity);
    heatCanvas.style.opacity = opacity;
    schedule();
  }

  function label() {
    if (shown === null) return;
    const name = slide?.name ?? app.library?.slides.find((one) => one.id === shown.slide)?.name ?? "";
    const what = shown.evidence === null || shown.mode === "slide" ? "" : nameOf(app, shown.evidence);
    title.textContent = [name, what].filter(Boolean).join(" · ");
    title.title = title.textContent;
    const map = what === "" ? "" : (heat.map()?.label ?? "");
    stage.setAttribute("aria-label", [`Pane ${index + 1}: ${name}`, what, map, MODES[shown.mode]].filter(Boolean).join(", "));
    section.setAttribute("aria-label", `Pane ${index + 1}`);
  }

  function closeImage() {
    stopTiles();
    osd.close();
    // Those that were given up keep their places in the queue of the old one.
    osd.imageLoader = new OpenSeadragon.ImageLoader({ ...LOADING, jobLimit: LOADING.imageLoaderLimit });
  }

  function openImage() {
    closeImage();
    const { image, stop } = openSeadragonImage(OpenSeadragon, slide, slideTile, tileFailed);
    stopTiles = stop;
    osd.open(image);
  }

  async function openSlide(id) {
    slide = null;
    say("slide", "");
    void miniMap.setSlide(null);
    closeImage();
    try {
      const info = await infos.slide(id);
      if (isDestroyed || shown?.slide !== id) return;
      slide = info;
      openImage();
      void miniMap.setSlide(info);
      home.style.background = "";
    } catch (error) {
      if (shown?.slide === id) say("slide", error.message);
    }
    label();
    emit("change");
    schedule();
  }

  function tileFailed(error) {
    if (error.status !== 0) say("tiles", `Some of the slide cannot be read: ${error.message}`);
    else again ??= setTimeout(reopen, RETRY_MS);
  }

  /** Once the server answers again: OpenSeadragon does not ask a second time for what it could not have. */
  async function reopen() {
    again = null;
    const now = slide;
    if (now === null || isDestroyed) return;
    try {
      await app.transport.json(`api/slides/${now.id}`);
      if (slide === now) openImage();
    } catch {
      again ??= setTimeout(reopen, RETRY_MS);
    }
  }

  async function openEvidence(id) {
    evidence = null;
    heat.setMap(null);
    say("evidence", "");
    if (id !== null) {
      try {
        const info = await infos.evidence(id);
        if (isDestroyed || shown?.evidence !== id) return;
        evidence = info;
      } catch (error) {
        if (shown?.evidence === id && error.name !== "AbortError") say("evidence", error.message);
      }
    }
    chooseMap();
    emit("change");
  }

  function chooseMap() {
    const map = mapOf(evidence, shown.map);
    heat.setMap(map === null ? null : heatMap(evidence.id, map));
    legend.clipped({ pixels: 0 });
    label();
    recolour();
    if (pointed !== null) readout.show(pointed);
  }

  /** Show another part of the state; only what differs is made anew. */
  pane.update = (next) => {
    const before = shown;
    shown = next;
    if (before === next) return;
    if (before?.slide !== next.slide) void openSlide(next.slide);
    if (before?.evidence !== next.evidence) void openEvidence(next.evidence ?? null);
    else if (before?.map !== next.map) chooseMap();
    if (before?.mode !== next.mode) slideOpacity();
    section.dataset.mode = next.mode;
    label();
    recolour();
  };
  pane.recolour = recolour;
  pane.apply = apply;

  /** Ask again for what could not be had. */
  pane.retry = () => {
    if (shown === null) return;
    if (slide === null) void openSlide(shown.slide);
    if (evidence === null && shown.evidence !== null) void openEvidence(shown.evidence);
  };

  /** Show a mark and the value at a place (um), or neither. */
  pane.pointAt = (at, withCross) => {
    pointed = at;
    readout.show(at);
    cross.hidden = at === null || !withCross;
    placeCross();
  };

  /** Fit the room there is: whole CSS pixels from a whole one on, so that canvases are neither stretched nor blurred. */
  pane.fit = () => {
    const box = frameElement.getBoundingClientRect();
    const [left, top] = [Math.ceil(box.left) - box.left, Math.ceil(box.top) - box.top];
    stage.style.left = `${left}px`;
    stage.style.top = `${top}px`;
    const next = [Math.max(0, Math.floor(box.width - left)), Math.max(0, Math.floor(box.height - top))];
    if (next[0] === width && next[1] === height) return;
    [width, height] = next;
    stage.style.width = `${width}px`;
    stage.style.height = `${height}px`;
    if (width > 0 && height > 0) {
      osd.viewport?.resize(new OpenSeadragon.Point(width, height), true);
      apply();
      osd.forceRedraw();
    }
  };

  /** Toggle the overview. */
  pane.showMiniMap = (isShown) => {
    section.dataset.miniMap = String(isShown);
    schedule();
  };

  /**
   * Draw what the pane shows, slide and heat, into `width` x `height` pixels of a canvas; resolves when all of it is there.
   * The whole of the pane's view is in it; another shape than the pane's shows more beside it.
   * @param {CanvasRenderingContext2D} ctx
   */
  pane.capture = async (ctx, wide, high) => {
    const now = { slide, shown, map: heat.map() };
    if (now.slide === null) throw new Error("the slide is not there yet");
    const seen = camera.get();
    const larger = Math.max(width / wide, height / high);
    const view = { ...seen, scale: seen.scale * larger };
    const { layout, curtain, panes } = store.get();
    const withHeat = now.map !== null && now.shown.mode !== "slide";
    // A curtain over this pane alone: the slide to its left, what the pane shows to its right.
    const cut = layout === "curtain" && panes.length === 1 && withHeat ? wide / 2 + ((curtain - 0.5) * width) / larger : 0;
    const part = async (left, right, draw) => {
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, 0, right - left, high);
      ctx.clip();
      await draw();
      ctx.restore();
    };
    const withSlide = now.shown.mode !== "heat";
    await part(0, wide, async () => {
      ctx.fillStyle = "#ffffff";
      ctx.fillRect(0, 0, wide, high);
    });
    if (withSlide || cut > 0) await part(0, withSlide ? wide : cut, () => drawSlide(now.slide, slideTile, ctx, view, wide, high));
    if (!withHeat) return;
    const canvas = new OffscreenCanvas(wide, high);
    await drawHeat(heats, now.map, lookOf(now.map), canvas.getContext("2d"), view, now.slide.size_um);
    await part(cut, wide, async () => {
      ctx.globalAlpha = now.shown.mode === "overlay" ? now.shown.opacity : 1;
      ctx.drawImage(canvas, 0, 0);
    });
  };

  const stopGestures = attachGestures(stage, {
    camera,
    toSlide: pane.toSlide,
    mayDrag: (event) => camera.get() !== null && (store.get().tool !== "lasso" || event.button !== 0),
    press: ({ x, y, event }) => emit("press", { pane, ...pane.toSlide(x, y), event }),
    hover: (at) => emit("hover", at === null || camera.get() === null ? null : { pane, ...pane.toSlide(at.x, at.y) }),
  });
  const activate = () => store.get().active !== index && index < store.get().panes.length && store.set({ active: index });
  section.addEventListener("pointerdown", activate, true);
  section.addEventListener("focusin", activate);
  const stopHeat = heats.on((where) => {
    if (heat.map() !== null && where.startsWith(`${heat.map().path}/`)) schedule();
  });

  pane.destroy = () => {
    isDestroyed = true;
    if (frame !== null) cancelAnimationFrame(frame);
    clearTimeout(rest);
    clearTimeout(again);
    stopGestures();
    stopHeat();
    stopTiles();
    for (const part of [heat, miniMap, outlines, readout]) part.destroy();
    osd.destroy();
    section.remove();
  };
  return pane;
}

/** Draw a map when all of its tiles have come. */
async function drawHeat(heats, map, look, ctx, view, bounds) {
  const layer = createHeatLayer(heats);
  layer.setMap(map);
  layer.setLook(look);
  try {
    await new Promise((resolve, reject) => {
      let stop = () => {};
      const attempt = () => {
        const isWhole = layer.draw(ctx, view, ctx.canvas.width, ctx.canvas.height, 1, bounds);
        if (!isWhole && !layer.hasFailed()) return;
        stop();
        if (isWhole) resolve();
        else reject(new Error("some of the heatmap cannot be read"));
      };
      stop = heats.on(attempt);
      attempt();
    });
  } finally {
    layer.destroy();
  }
}
