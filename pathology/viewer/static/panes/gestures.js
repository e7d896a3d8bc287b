// Mouse, pen, touch and wheel over a pane, as moves of the camera.

const CLICK_PX = 4;
const CLICK_MS = 600;

/**
 * @param {HTMLElement} stage
 * @param {object} setting
 * @param {object} setting.camera
 * @param {function(number, number): object} setting.toSlide
 * @param {function(PointerEvent): boolean} setting.mayDrag false where a tool has the pointer
 * @param {function(object)} setting.press a click that is no drag, in screen pixels
 * @param {function(object|null)} setting.hover
 */
export function attachGestures(stage, { camera, toSlide, mayDrag, press, hover }) {
  const down = new Map(); // pointerId -> {x, y}
  let began = null;
  let flick = [];

  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  function onDown(event) {
    if (event.defaultPrevented || !mayDrag(event) || event.button > 1) return;
    if (event.button === 1) event.preventDefault(); // no scrolling by the middle button
    down.set(event.pointerId, at(event));
    stage.setPointerCapture(event.pointerId);
    began = down.size === 1 ? { ...at(event), time: event.timeStamp, moved: false } : null;
    flick = [];
    stage.dataset.held = "";
  }

  function onMove(event) {
    const now = at(event);
    if (!down.has(event.pointerId)) return hover({ ...now, event });
    const before = down.get(event.pointerId);
    if (began !== null && !began.moved) {
      if (Math.hypot(now.x - began.x, now.y - began.y) < CLICK_PX) return;
      began.moved = true;
    }
    if (down.size === 1) {
      camera.pan(before.x - now.x, before.y - now.y);
      flick = [...flick.filter((one) => event.timeStamp - one.time < 80), { ...now, time: event.timeStamp }];
    } else if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      pinch(before, now, other);
    }
    down.set(event.pointerId, now);
    hover({ ...now, event });
  }

  function pinch(before, now, other) {
    const [wide, narrow] = [Math.hypot(now.x - other.x, now.y - other.y), Math.hypot(before.x - other.x, before.y - other.y)];
    const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
    camera.pan((before.x - now.x) / 2, (before.y - now.y) / 2);
    if (wide > 0 && narrow > 0) camera.zoom(narrow / wide, toSlide(middle.x, middle.y));
  }

  function onUp(event) {
    if (!down.delete(event.pointerId)) return;
    if (down.size > 0) return;
    delete stage.dataset.held;
    const was = began;
    began = null;
    if (was === null || event.type === "pointercancel") return;
    if (!was.moved) {
      if (event.timeStamp - was.time < CLICK_MS && event.button === 0) press({ ...at(event), event });
      return;
    }
    const recent = flick.filter((one) => event.timeStamp - one.time < 80);
    if (recent.length < 2 || camera.isStill()) return;
    const [first, last] = [recent[0], recent.at(-1)];
    const ms = Math.max(last.time - first.time, 1);
    const [vx, vy] = [(last.x - first.x) / ms, (last.y - first.y) / ms];
    if (Math.hypot(vx, vy) > 0.3) camera.pan(-vx * 120, -vy * 120, 360);
  }

  function onWheel(event) {
    event.preventDefault(); // the page stays where it is
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    const delta = Math.max(-240, Math.min(240, event.deltaY * lines)) * (event.ctrlKey ? 4 : 1); // ctrl: a pinch on a touchpad
    const { x, y } = at(event);
    camera.zoom(1.0025 ** delta, toSlide(x, y), Math.abs(delta) >= 50 ? 140 : 0);
  }

  function onDouble(event) {
    if (event.defaultPrevented || !mayDrag(event)) return;
    const { x, y } = at(event);
    camera.zoom(event.shiftKey ? 2 : 0.5, toSlide(x, y), 200);
  }

  const listeners = {
    pointerdown: onDown,
    pointermove: onMove,
    pointerup: onUp,
    pointercancel: onUp,
    pointerleave: () => down.size === 0 && hover(null),
    dblclick: onDouble,
  };
  for (const [name, listener] of Object.entries(listeners)) stage.addEventListener(name, listener);
  stage.addEventListener("wheel", onWheel, { passive: false });
  return () => {
    for (const [name, listener] of Object.entries(listeners)) stage.removeEventListener(name, listener);
    stage.removeEventListener("wheel", onWheel);
  };
}
