// The regions of the slide: what is drawn or imported, selected, renamed, deleted and brought back.

import { boundsOf } from "./overlay.js";
import { createRegionStore } from "./region_store.js";
import { activeSlide } from "../base/shown.js";

const MOST_SINGLE = 40; // outlines that are drawn one by one, with their names

/** A random id as QuPath has them; `crypto.randomUUID` is missing on plain-http notebook hubs. */
function freshUuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Whether a point lies in polygons, by crossings; holes count. */
export function isInside([x, y], polygons) {
  let inside = false;
  for (const ring of polygons.flat()) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [[ax, ay], [bx, by]] = [ring[i], ring[j]];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
  }
  return inside;
}

/** What a region is called among classes of annotations: its classes, or its name. */
export function classesOf(region) {
  return region.classes?.length ? region.classes : [region.name];
}

/**
 * @param {object} app
 * @param {{add: function}} overlay
 * @param {object} sums as `createSums` makes them
 */
export function createRegions(app, overlay, sums) {
  const { store } = app;
  const keeper = createRegionStore(app.options.link);
  let undo = [];
  let isMine = false;
  let isWarned = false;

  const here = () => {
    const slide = activeSlide(app);
    return store.get().regions.filter((region) => region.slide === slide);
  };
  const selected = () => here().find((region) => region.id === store.get().selected) ?? null;

  /** What is known of the slides that panes shall show, by id. */
  function slidesOf() {
    const wanted = new Set((store.get().panes ?? []).map((pane) => pane.slide));
    return new Map(app.panes.list().filter(({ slide }) => slide && wanted.has(slide.id)).map(({ slide }) => [slide.id, slide]));
  }

  function replace(regions, patch = {}) {
    for (const [id, slide] of slidesOf()) {
      if (keeper.keep(slide, regions.filter((region) => region.slide === id)) || isWarned) continue;
      isWarned = true;
      app.notify("These regions last as long as this page: export them to keep them.", { kind: "note" });
    }
    show(regions, patch);
  }

  function show(regions, patch = {}) {
    isMine = true;
    store.set({ regions, ...patch });
    isMine = false;
  }

  // Whoever opens a slide starts without regions; what was kept of the slides shown comes back here.
  function load() {
    if (isMine) return;
    const wanted = new Set((store.get().panes ?? []).map((pane) => pane.slide));
    const shown = store.get().regions.filter((region) => wanted.has(region.slide));
    const known = new Set(shown.map((region) => region.id));
    const kept = [...slidesOf().values()].flatMap(keeper.kept).filter((region) => !known.has(region.id));
    if (kept.length || shown.length !== store.get().regions.length) show([...shown, ...kept]);
  }

  // Another tab with the same slide: what was drawn or deleted there is so here, or the tab that writes last would undo the other's work.
  function hear(id) {
    const slide = slidesOf().get(id);
    if (slide) show([...store.get().regions.filter((region) => region.slide !== id), ...keeper.kept(slide)]);
  }

  // The server's valid geometry is what was summed, so it is what is drawn: a line that crosses itself is filled as it was counted.
  function settle() {
    const { regions } = store.get();
    const settled = regions.map((region) => {
      if (region.kind !== "lasso" || region.settled) return region;
      for (const { slide, evidence } of store.get().panes ?? []) {
        if (!evidence || slide !== region.slide) continue;
        const answer = sums.get(evidence, region);
        if (!answer?.polygons?.length) continue;
        sums.adopt(region.polygons, answer.polygons);
        return { ...region, polygons: answer.polygons, settled: true };
      }
      return region;
    });
    if (settled.some((region, i) => region !== regions[i])) replace(settled);
  }

  function nextName() {
    const names = new Set(here().map((region) => region.name));
    let n = 1;
    while (names.has(`Region ${n}`)) n += 1;
    return `Region ${n}`;
  }

  const regions = {
    list: here,
    selected,
    /** Add one that was drawn; it is selected. */
    draw(polygons, slide, name = nextName()) {
      const region = { id: freshUuid(), name, kind: "lasso", polygons, slide };
      replace([...store.get().regions, region], { selected: region.id });
      return region;
    },
    /** Add imported ones. */
    bring(imported, slide) {
      const known = new Set(store.get().regions.map((region) => region.id));
      const added = imported.map(({ id, name, classes, polygons, colour }) => ({
        id: id && !known.has(id) ? id : freshUuid(),
        name, classes, polygons, colour, slide, kind: "annotation",
      }));
      replace([...store.get().regions, ...added], { selected: added[0]?.id ?? store.get().selected });
    },
    rename(id, name) {
      const text = name.trim();
      if (!text) return;
      replace(store.get().regions.map((region) => (region.id === id ? { ...region, name: text } : region)));
    },
    select(id) {
      store.set({ selected: id });
    },
    /** Take regions away; `restore` brings the last ones back. */
    remove(ids) {
      const { regions: all, selected: chosen } = store.get();
      const gone = all.filter((region) => ids.includes(region.id));
      if (!gone.length) return;
      undo = [...undo, { slide: gone[0].slide, gone, order: all.map((region) => region.id), chosen }];
      const order = here();
      const at = order.findIndex((region) => region.id === chosen);
      const left = order.filter((region) => !ids.includes(region.id));
      const next = ids.includes(chosen) ? (left[Math.min(at, left.length - 1)]?.id ?? null) : chosen;
      replace(all.filter((region) => !ids.includes(region.id)), { selected: next });
      const what = gone.length === 1 ? gone[0].name : `${gone.length} regions`;
      app.announce(`Deleted ${what}. ${app.commands.keyOf("region.restore")} brings it back.`);
    },
    canRestore: () => undo.some((one) => one.slide === activeSlide(app)),
    restore() {
      const last = undo.findLast((one) => one.slide === activeSlide(app));
      if (!last) return;
      undo = undo.filter((one) => one !== last);
      const { regions: now } = store.get();
      const back = last.gone.filter(({ id }) => !now.some((region) => region.id === id));
      const placeOf = ({ id }) => (last.order.includes(id) ? last.order.indexOf(id) : Infinity);
      replace([...now, ...back].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : Number(placeOf(a) > placeOf(b)))), { selected: last.chosen });
      app.announce(`${back.map((region) => region.name).join(", ")} is back.`);
    },
    step(by) {
      const order = here();
      if (!order.length) return;
      const at = order.findIndex((region) => region.id === store.get().selected);
      const next = order[(at + by + order.length + (at < 0 && by < 0 ? 1 : 0)) % order.length];
      store.set({ selected: next.id });
      app.announce(`${next.name} selected.`);
    },
    fly(region = selected()) {
      const mpp = app.panes.list().find((pane) => pane.slide?.id === region?.slide)?.slide.mpp;
      if (!mpp) return;
      const [left, top, right, bottom] = boundsOf(region.polygons.flat(2));
      const [x, y, width, height] = [left * mpp[0], top * mpp[1], (right - left) * mpp[0], (bottom - top) * mpp[1]];
      app.panes.flyTo([x - width / 4, y - height / 4, width * 1.5, height * 1.5]);
    },
    /** The region at a place, the smallest of several. */
    at(point, slide) {
      const found = store.get().regions.filter((region) => region.slide === slide && isInside(point, region.polygons));
      const size = (region) => {
        const [left, top, right, bottom] = boundsOf(region.polygons.flat(2));
        return (right - left) * (bottom - top);
      };
      return found.sort((a, b) => size(a) - size(b))[0] ?? null;
    },
  };

  const outline = (region, isSelected, label) => ({
    lines: region.polygons.flat(), label, colour: region.colour, isSelected,
    className: isSelected ? "tool-region tool-selected" : "tool-region",
  });
  const layer = overlay.add((pane) => {
    const { regions: all, selected: chosen } = store.get();
    const shown = all.filter((region) => region.slide === pane.slide.id);
    const others = shown.filter((region) => region.id !== chosen);
    const front = shown.filter((region) => region.id === chosen).map((region) => outline(region, true, region.name));
    if (shown.length <= MOST_SINGLE) return [...others.map((region) => outline(region, false, region.name)), ...front];
    // Many are drawn as one of each colour, or every frame would move hundreds of paths; their names would hide the slide.
    const byColour = Map.groupBy(others, (region) => region.colour ?? null);
    const merged = [...byColour].map(([colour, members]) => outline({ polygons: members.flatMap((region) => region.polygons), colour }, false, ""));
    return [...merged, ...front];
  });
  const offs = [
    store.subscribe(["panes", "regions"], load),
    app.panes.on("change", load),
    store.subscribe(["regions", "selected"], layer.refresh),
    sums.on(settle),
    keeper.on(hear),
    layer.remove,
  ];
  load();
  return { ...regions, destroy: () => offs.forEach((off) => off()) };
}
