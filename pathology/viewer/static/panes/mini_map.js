// The whole slide, small, with the outline of what the pane shows; a click or a drag in it moves there.

import { element } from "../base/dom.js";
import { cornersOf } from "./geometry.js";

const MOST = 132;

/**
 * @param {object} app
 * @param {object} camera
 */
export function createMiniMap(app, camera) {
  const canvas = element("canvas", { class: "mini-map", role: "img", "aria-label": "Overview of the slide", hidden: true });
  let slide = null;
  let picture = null;
  let controller = null;

  async function setSlide(next) {
    controller?.abort();
    picture?.close();
    picture = null;
    slide = next;
    canvas.hidden = slide === null;
    if (slide === null) return;
    canvas.setAttribute("aria-label", `Overview of ${slide.name}`);
    const mine = (controller = new AbortController());
    try {
      const blob = await app.transport.blob(`api/slides/${slide.id}/thumbnail.jpg`, { signal: mine.signal });
      const made = await createImageBitmap(blob);
      if (mine.signal.aborted) return made.close();
      picture = made;
      show(camera.get(), ...last);
    } catch (error) {
      if (!mine.signal.aborted) app.fail(error);
    }
  }

  let last = [0, 0];
  function show(view, width, height) {
    last = [width, height];
    if (slide === null || view === null || canvas.hidden || !(width > 0)) return;
    const most = Math.min(MOST, 0.4 * width, 0.4 * height) / Math.max(...slide.size_um);
    const size = slide.size_um.map((um) => Math.max(8, Math.round(most * um)));
    canvas.style.width = `${size[0]}px`;
    canvas.style.height = `${size[1]}px`;
    const ratio = globalThis.devicePixelRatio || 1;
    const [w, h] = size.map((px) => Math.round(px * ratio));
    if (canvas.width !== w) canvas.width = w;
    if (canvas.height !== h) canvas.height = h;
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = slide.background ?? "#ffffff";
    ctx.fillRect(0, 0, w, h);
    if (picture !== null) ctx.drawImage(picture, 0, 0, w, h);
    const corners = cornersOf(view, width, height).map(([x, y]) => [(x / slide.size_um[0]) * w, (y / slide.size_um[1]) * h]);
    ctx.beginPath();
    corners.forEach(([x, y]) => ctx.lineTo(x, y));
    ctx.closePath();
    // A dark line in a light one is seen on any slide.
    ctx.lineWidth = 4 * ratio;
    ctx.strokeStyle = "rgb(255 255 255 / 0.8)";
    ctx.stroke();
    ctx.lineWidth = 2 * ratio;
    ctx.strokeStyle = "#c2185b";
    ctx.stroke();
    // A view of a few pixels of the overview is a cross, so that it can be found.
    const [cx, cy] = [(view.x / slide.size_um[0]) * w, (view.y / slide.size_um[1]) * h];
    ctx.beginPath();
    for (const [dx, dy] of [[4, 0], [0, 4]]) {
      ctx.moveTo(cx - dx * ratio, cy - dy * ratio);
      ctx.lineTo(cx + dx * ratio, cy + dy * ratio);
    }
    ctx.lineWidth = ratio;
    ctx.stroke();
  }

  function move(event) {
    const box = canvas.getBoundingClientRect();
    const part = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    camera.go({ ...camera.target(), x: part[0] * slide.size_um[0], y: part[1] * slide.size_um[1] });
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    canvas.setPointerCapture(event.pointerId);
    move(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    event.stopPropagation();
    if (canvas.hasPointerCapture(event.pointerId)) move(event);
  });
  canvas.addEventListener("dblclick", (event) => event.stopPropagation());

  return {
    element: canvas,
    setSlide,
    show,
    destroy() {
      controller?.abort();
      picture?.close();
    },
  };
}
