// Drawing a region: freehand, by clicks, or by keys with the crosshair at the middle of the active pane.
//
// A drag that starts a region and ends it is freehand; clicks set corners until the first one is met again, a double click or
// Shift+Enter closes. Points are level-0 pixels, so the view may move while a region is drawn.

import { drawing } from "../base/dom.js";
import { activePane, isPlaced } from "../base/shown.js";

const DRAG_PX = 4;
const STEP_PX = 2;
const MEET_PX = 10;

function distance(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

/** Whether points lie in one line, or all but. A line that crosses itself may have no signed area, and be a region all the same. */
function isLine(points) {
  const [[ax, ay]] = points;
  const [fx, fy] = points.reduce((far, [x, y]) => (Math.hypot(x - ax, y - ay) > Math.hypot(...far) ? [x - ax, y - ay] : far), [0, 0]);
  return points.every(([x, y]) => Math.abs(fx * (y - ay) - fy * (x - ax)) < 1);
}

/**
 * @param {object} app
 * @param {{add: function}} overlay
 * @param {function(number[][], string)} finish what to do with a closed ring of level-0 pixels and the slide's id
 */
export function createLasso(app, overlay, finish) {
  let draft = null; // {slide, points, tip}
  let stroke = null; // {pointer, pane, from, last, began, isDrag}
  let bound = [];
  const isOn = () => app.store.get().tool === "lasso";

  const whereOf = (pane, event) => {
    const box = pane.svg.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const pixelOf = (pane, at) => {
    const { x_um: x, y_um: y } = pane.toSlide(at.x, at.y);
    const [mx, my] = pane.slide.mpp;
    return [Number((x / mx).toFixed(2)), Number((y / my).toFixed(2))];
  };
  const screenOf = (pane, [x, y]) => pane.toScreen(x * pane.slide.mpp[0], y * pane.slide.mpp[1]);

  function setDraft(next) {
    draft = next;
    layer.refresh();
  }

  function append(pane, point) {
    const last = draft?.points.at(-1);
    if (last && last[0] === point[0] && last[1] === point[1]) return;
    const same = draft?.slide === pane.slide.id;
    setDraft({ slide: pane.slide.id, points: [...(same ? draft.points : []), point], tip: null });
  }

  function close() {
    if (!draft) return;
    const { points, slide } = draft;
    if (points.length < 3 || isLine(points)) {
      app.announce("A region needs three points that are not in one line.");
      return;
    }
    setDraft(null);
    finish([...points, points[0]], slide);
  }

  function cancel() {
    stroke = null;
    setDraft(null);
  }

  function down(pane, event) {
    if (!isOn() || !pane.slide || !isPlaced(app) || event.button !== 0 || !pane.stage.contains(event.target)) return;
    event.stopPropagation(); // else the slide would be dragged
    if (stroke) return cancel(); // a second finger
    const from = whereOf(pane, event);
    pane.stage.setPointerCapture(event.pointerId);
    stroke = { pointer: event.pointerId, pane, from, last: from, began: !draft || draft.slide !== pane.slide.id, isDrag: false };
  }

  function move(pane, event) {
    if (!isOn() || !isPlaced(app)) return;
    const at = whereOf(pane, event);
    if (!stroke) {
      if (draft?.slide === pane.slide?.id && event.pointerType !== "touch") setDraft({ ...draft, tip: pixelOf(pane, at) });
      return;
    }
    if (stroke.pointer !== event.pointerId) return;
    event.stopPropagation();
    if (!stroke.isDrag && distance(at, stroke.from) < DRAG_PX) return;
    if (!stroke.isDrag) append(pane, pixelOf(pane, stroke.from));
    stroke.isDrag = true;
    // Browsers hand over several moves at once: a quick hand keeps its curve.
    for (const part of event.getCoalescedEvents?.() ?? []) follow(pane, whereOf(pane, part));
    follow(pane, at);
  }

  function follow(pane, at) {
    if (distance(at, stroke.last) < STEP_PX) return;
    stroke.last = at;
    append(pane, pixelOf(pane, at));
  }

  function up(pane, event) {
    if (!stroke || stroke.pointer !== event.pointerId) return;
    event.stopPropagation();
    const { from, began, isDrag } = stroke;
    stroke = null;
    if (isDrag) {
      if (began) close();
      return;
    }
    const first = draft?.slide === pane.slide.id && draft.points.length > 2 ? screenOf(pane, draft.points[0]) : null;
    if (first && distance(first, from) < MEET_PX) close();
    else append(pane, pixelOf(pane, from));
  }

  // Panes keep their listeners as long as they live: pressing on one makes it the active one, which is a change of panes, and listeners
  // that were replaced just then would miss the press.
  function bind() {
    const panes = app.panes.list();
    for (const old of bound.filter(({ pane }) => !panes.includes(pane))) unbind(old);
    for (const pane of panes.filter((one) => !bound.some((known) => known.pane === one))) {
      const listeners = {
        pointerdown: (event) => down(pane, event),
        pointermove: (event) => move(pane, event),
        pointerup: (event) => up(pane, event),
        pointercancel: () => stroke && cancel(),
        dblclick: (event) => {
          if (!isOn() || !pane.stage.contains(event.target)) return;
          event.stopPropagation();
          close();
        },
      };
      for (const [name, listener] of Object.entries(listeners)) pane.element.addEventListener(name, listener, true);
      const cross = drawing("path", { class: "tool-cross", d: "M-14 0H-4M4 0H14M0 -14V-4M0 4V14", "aria-hidden": "true" });
      pane.svg.append(cross);
      bound.push({ pane, listeners, cross });
    }
    aim();
  }

  function unbind(one) {
    for (const [name, listener] of Object.entries(one.listeners)) one.pane.element.removeEventListener(name, listener, true);
    one.cross.remove();
    bound = bound.filter((other) => other !== one);
  }

  function aim() {
    const chosen = activePane(app);
    const isAiming = app.store.get().tool !== "pan";
    for (const { pane, cross } of bound) {
      pane.stage.classList.toggle("is-aiming", isAiming);
      cross.classList.toggle("is-shown", isAiming && pane === chosen);
      const { width, height } = pane.size;
      cross.setAttribute("transform", `translate(${width / 2} ${height / 2})`);
    }
  }

  /** The point at the middle of the active pane, where keys act. */
  function centre() {
    const pane = activePane(app);
    if (!pane?.slide || !isPlaced(app)) return null;
    const { width, height } = pane.size;
    return { pane, point: pixelOf(pane, { x: width / 2, y: height / 2 }) };
  }

  const layer = overlay.add((pane) => {
    if (draft?.slide !== pane.slide.id) return [];
    const points = draft.tip ? [...draft.points, draft.tip] : draft.points;
    return [{ lines: [points], open: true, dots: [draft.points[0]], className: "tool-draft" }];
  });
  const offs = [
    app.panes.on("change", bind),
    app.panes.on("view", aim),
    app.store.subscribe(["tool", "active"], () => {
      if (!isOn() && draft) cancel();
      aim();
    }),
    layer.remove,
  ];
  bind();

  const { add } = app.commands;
  const isDrawing = () => isOn() && draft !== null;
  const group = "Regions";
  offs.push(
    add({ id: "lasso.close", key: "Shift+Enter", label: "Close the region", group, enabled: isDrawing, run: close }),
    add({
      id: "lasso.back", key: "Backspace", label: "Take the last point back", group, enabled: isDrawing,
      run: () => setDraft(draft.points.length > 1 ? { ...draft, points: draft.points.slice(0, -1), tip: null } : null),
    }),
  );

  /** Set a corner where the crosshair is. */
  function addHere() {
    const here = centre();
    if (!here) return;
    append(here.pane, here.point);
    app.announce(`Point ${draft.points.length}. Move with the arrow keys; Shift+Enter closes the region.`);
  }

  return {
    addHere,
    centre,
    isDrawing,
    cancel,
    destroy() {
      bound.forEach(unbind);
      for (const off of offs) off?.();
    },
  };
}
