// One camera for all panes. Panes never move each other: they all show the same place (um of the centre, um per CSS pixel, degrees), so
// there is no leader to follow, no ping-pong and no drift, whatever their sizes, slides and pixels are.

/**
 * @param {object} setting
 * @param {function(): boolean} setting.isStill true if motion is not wanted
 * @returns {object} camera
 */
export function createCamera({ isStill }) {
  let view = null; // as shown
  let target = null; // as wanted
  let limits = { box: null, finest: 1e-3, coarsest: 1e6 };
  let frame = null;
  const listeners = new Set();

  function bounded(next) {
    const scale = Math.min(Math.max(next.scale, limits.finest), limits.coarsest);
    let { x, y } = next;
    if (limits.box !== null) {
      const [left, top, width, height] = limits.box;
      x = Math.min(Math.max(x, left), left + width);
      y = Math.min(Math.max(y, top), top + height);
    }
    return { x, y, scale, rotation: ((next.rotation % 360) + 360) % 360 };
  }

  function show(next) {
    view = Object.freeze(next);
    for (const listener of listeners) listener(view);
  }

  function stop() {
    if (frame !== null) cancelAnimationFrame(frame);
    frame = null;
  }

  /** Go to a view; `ms` is how long it may take to get there. */
  function go(next, ms = 0) {
    stop();
    target = bounded(next);
    if (view === null || ms === 0 || isStill()) return show(target);
    const [from, to, start] = [view, target, performance.now()];
    const turn = ((to.rotation - from.rotation + 540) % 360) - 180;
    const step = (now) => {
      const t = Math.min(1, Math.max(0, (now - start) / ms));
      if (t === 1) {
        frame = null;
        return show(to);
      }
      frame = requestAnimationFrame(step);
      const eased = 1 - (1 - t) ** 3;
      const scale = from.scale * (to.scale / from.scale) ** eased;
      // The centre goes with the scale, so that the point that is zoomed at stays where it is.
      const way = Math.abs(Math.log(to.scale / from.scale)) < 1e-6 ? eased : (scale - from.scale) / (to.scale - from.scale);
      show({
        x: from.x + (to.x - from.x) * way,
        y: from.y + (to.y - from.y) * way,
        scale,
        rotation: (from.rotation + turn * eased + 360) % 360,
      });
    };
    frame = requestAnimationFrame(step);
  }

  /** Zoom about a place that stays where it is; the centre if none is given. */
  function zoom(factor, at = null, ms = 0) {
    const base = target;
    const scale = bounded({ ...base, scale: base.scale * factor }).scale;
    const real = scale / base.scale;
    const { x_um, y_um } = at ?? { x_um: base.x, y_um: base.y };
    go({ ...base, scale, x: x_um + (base.x - x_um) * real, y: y_um + (base.y - y_um) * real }, ms);
  }

  /** Move by screen pixels, as if the slide were dragged the other way. */
  function pan(dx, dy, ms = 0) {
    const angle = (target.rotation * Math.PI) / 180;
    const [cos, sin] = [Math.cos(angle) * target.scale, Math.sin(angle) * target.scale];
    go({ ...target, x: target.x + dx * cos + dy * sin, y: target.y - dx * sin + dy * cos }, ms);
  }

  return {
    /** The view as shown now, null before the first. */
    get: () => view,
    /** Where it is going. */
    target: () => target,
    isStill,
    go,
    zoom,
    pan,
    /** Turn by degrees, clockwise. */
    turn: (degrees, ms = 0) => go({ ...target, rotation: target.rotation + degrees }, ms),
    /** The box (um) that the centre stays in, and the um per pixel that zooming ends at. */
    limit(next) {
      limits = { ...limits, ...next };
    },
    forget() {
      stop();
      view = target = null;
    },
    /** Hear of every new view. @returns {function()} */
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    destroy() {
      stop();
      listeners.clear();
    },
  };
}
