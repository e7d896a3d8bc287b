// The view as text in an address, readable, and back. What a link says that makes no sense is left out and told.

import { describe, slideOf } from "../base/names.js";
import { LIST, SHOWN } from "../list/slide_rows.js";
import { COLOUR, INITIAL } from "../base/store.js";

const MODES = ["slide", "heat", "overlay"];
const SIGNS = ["both", "for", "against"];
const PALETTES = ["blue-brown", "purple-green"];
const PANELS = ["ledger", "regions", "gallery", "model", "none"];
const MOST_POINTS = 600; // of regions: links have to be sent in mails

const decimals = (value, many) => String(Number(value.toFixed(many)));
const quoted = (text) => encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%20", "+");
const unquoted = (text) => decodeURIComponent(text.replaceAll("+", "%20"));

/**
 * The state as text: `slide=ID&view=X,Y,SCALE,ROTATION&pane=EVIDENCE:MODE:PERCENT:MAP…`; only what is not as it always is.
 * @param {object} state
 * @returns {string}
 */
export function written(state) {
  const parts = [];
  const put = (name, value) => parts.push(value === null ? name : `${name}=${value}`);
  if (state.page === "list") {
    const { list = LIST } = state;
    if (list.find) put("find", quoted(list.find));
    if (list.label) put("label", quoted(list.label));
    if (list.show !== LIST.show) put("show", list.show);
    if (list.sort !== LIST.sort) put("sort", quoted(list.sort));
    if (list.descending) put("down", null);
    return parts.join("&");
  }
  put("slide", state.slide);
  if (state.view) {
    const { x, y, scale, rotation } = state.view;
    put("view", [decimals(x, 2), decimals(y, 2), String(Number(scale.toPrecision(6))), decimals(rotation, 1)].join(","));
  }
  for (const pane of state.panes) {
    const own = [pane.evidence ?? "", pane.mode, Math.round(100 * pane.opacity), quoted(pane.map)];
    if (pane.slide !== state.slide) own.push(pane.slide);
    put("pane", own.join(":"));
  }
  if (state.active > 0) put("active", state.active + 1);
  if (state.layout === "curtain") put("curtain", decimals(state.curtain, 3));
  const { colour } = state;
  for (const [name, limit] of Object.entries(colour.limits)) {
    if (limit !== state.library?.limits[name]) put(`limit:${quoted(name)}`, limit);
  }
  if (colour.threshold !== COLOUR.threshold) put("hide-below", colour.threshold);
  if (colour.sign !== COLOUR.sign) put("sign", colour.sign);
  if (colour.palette !== COLOUR.palette) put("palette", colour.palette);
  if (colour.smooth) put("smooth", null);
  if (colour.grid) put("grid", null);
  if (state.panel !== INITIAL.panel) put("panel", state.panel ?? "none");
  if (state.tile) put("tile", `${state.tile.evidence}:${state.tile.index}`);
  for (const region of regionsWritten(state.regions)) {
    put("region", [region.id, region.kind, region.name ?? "", region.slide].map(quoted).join(":") + `:${outline(region.polygons)}`);
    if (region.id === state.selected) put("selected", quoted(region.id));
  }
  return parts.join("&");
}

/** Those of the regions, from the first on, that a link has room for. @param {object[]} regions */
export function regionsWritten(regions) {
  let points = 0;
  return regions.filter(({ polygons }) => (points += polygons.flat(2).length) <= MOST_POINTS);
}

function outline(polygons) {
  const ring = (points) => points.map(([x, y]) => `${decimals(x, 1)},${decimals(y, 1)}`).join("_");
  return polygons.map((rings) => rings.map(ring).join(";")).join("!");
}

/**
 * What a link asks for.
 * @param {string} text without the "#"
 * @param {object} library
 * @returns {{patch: object, problems: string[]}} values for the store; what could not be had, in words
 */
export function parsed(text, library) {
  const problems = [];
  const found = new Map();
  for (const part of text.split("&").filter(Boolean)) {
    const cut = part.indexOf("=");
    const [name, value] = cut < 0 ? [part, ""] : [part.slice(0, cut), part.slice(cut + 1)];
    found.set(name, [...(found.get(name) ?? []), value]);
  }
  const unread = new Set(found.keys());
  /** What `read` makes of a part; null, and a problem, if it throws or says null. */
  function take(name, read) {
    unread.delete(name);
    return (found.get(name) ?? []).map((value) => {
      try {
        const made = read(value);
        if (made !== null && made !== undefined) return made;
      } catch {
        // told below
      }
      problems.push(`${shortened(name)}=${shortened(value)}`);
      return null;
    });
  }
  const one = (name, read) => take(name, read).at(-1) ?? null;
  const of = (allowed) => (value) => (allowed.includes(value) ? value : null);
  const number = (low, high) => (value) => {
    const made = value === "" ? NaN : Number(value);
    return made >= low && made <= high ? made : null;
  };

  const id = one("slide", (value) => (slideOf(library, value)?.problem === null ? value : null));
  if (id === null) {
    const list = {
      find: one("find", unquoted) ?? LIST.find,
      label: one("label", unquoted) ?? LIST.label,
      show: one("show", of(Object.keys(SHOWN))) ?? LIST.show,
      sort: one("sort", unquoted) ?? LIST.sort,
      descending: one("down", () => true) ?? false,
    };
    if (found.has("slide")) return { patch: { page: "list", list }, problems: [problems[0]] }; // the rest is of no slide
    return { patch: { page: "list", list }, problems: [...problems, ...[...unread].map(shortened)] };
  }

  const panes = take("pane", (value) => paneOf(value, id, library)).filter((pane) => pane !== null).slice(0, 4);
  const patch = {
    page: "slide",
    slide: id,
    panes,
    view: one("view", viewOf),
    active: Math.min(Math.max(0, (one("active", number(1, 4)) ?? 1) - 1), Math.max(0, panes.length - 1)),
    tile: one("tile", (value) => tileOf(value, library)),
  };
  const panel = one("panel", of(PANELS)) ?? INITIAL.panel;
  patch.panel = panel === "none" ? null : panel;
  const curtain = one("curtain", number(0, 1));
  const isParted = panes.length > 1 || (panes.length === 1 && panes[0].mode !== "slide");
  patch.layout = curtain !== null && isParted ? "curtain" : "grid";
  if (curtain !== null) patch.curtain = curtain;
  const limits = { ...library.limits };
  for (const name of [...found.keys()].filter((key) => key.startsWith("limit:"))) {
    const limit = one(name, number(Number.MIN_VALUE, Number.MAX_VALUE));
    if (limit !== null) limits[unquoted(name.slice(6))] = limit;
  }
  patch.colour = {
    limits,
    threshold: one("hide-below", number(0, Number.MAX_VALUE)) ?? COLOUR.threshold,
    sign: one("sign", of(SIGNS)) ?? COLOUR.sign,
    palette: one("palette", of(PALETTES)) ?? COLOUR.palette,
    smooth: one("smooth", () => true) ?? false,
    grid: one("grid", () => true) ?? false,
  };
  patch.regions = take("region", (value) => regionOf(value, library)).filter((region) => region !== null);
  const selected = one("selected", unquoted);
  patch.selected = patch.regions.some((region) => region.id === selected) ? selected : null;
  return { patch, problems: [...problems, ...[...unread].map(shortened)] };
}

function shortened(text) {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text; // as it is, but short: it goes into a line of text
}

function paneOf(value, slide, library) {
  const [evidence, mode, percent, map, other] = value.split(":");
  const own = other ?? slide;
  if (slideOf(library, own)?.problem !== null || !MODES.includes(mode)) return null;
  const opacity = Number(percent) / 100;
  if (!(opacity >= 0 && opacity <= 1)) return null;
  if (evidence !== "") {
    const told = describe(library, evidence);
    if (told === null || told.slide !== own || !told.isOpen) return null;
  }
  return { slide: own, evidence: evidence || null, map: unquoted(map) || "heatmap", mode: evidence ? mode : "slide", opacity };
}

function viewOf(value) {
  const [x, y, scale, rotation = 0] = value.split(",").map(Number);
  const isFine = [x, y, scale, rotation].every(Number.isFinite) && scale > 0 && scale < 1e6 && Math.max(Math.abs(x), Math.abs(y)) < 1e9;
  return isFine ? { x, y, scale, rotation } : null;
}

function tileOf(value, library) {
  const [evidence, index] = value.split(":");
  const told = describe(library, evidence);
  return told !== null && told.isOpen && /^\d+$/.test(index) ? { evidence, index: Number(index) } : null;
}

function regionOf(value, library) {
  const [id, kind, name, slide, text] = value.split(":");
  const point = (pair) => pair.split(",").map(Number);
  const polygons = text.split("!").map((rings) => rings.split(";").map((ring) => ring.split("_").map(point)));
  const isFine = polygons.every((rings) =>
    rings.every((ring) => ring.length >= 3 && ring.every((pair) => pair.length === 2 && pair.every(Number.isFinite))),
  );
  if (!isFine || slideOf(library, unquoted(slide)) === null || !["lasso", "annotation"].includes(kind)) return null;
  return { id: unquoted(id), name: unquoted(name), kind, polygons, slide: unquoted(slide) };
}
