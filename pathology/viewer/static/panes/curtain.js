// Two panes in one place, parted by a line that is dragged, or moved by keys.

import { element } from "../base/dom.js";

/** @param {object} app @param {HTMLElement} home the element that the panes fill */
export function createCurtain(app, home) {
  const line = element(
    "div",
    {
      class: "curtain",
      role: "separator",
      "aria-orientation": "vertical",
      "aria-label": "Curtain between the left and the right picture",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      tabIndex: 0,
      hidden: true,
    },
    element("div", { class: "curtain-grip" }),
  );
  home.append(line);
  let frame = null;
  let cut = [];

  const set = (part) => app.store.set({ curtain: Math.min(1, Math.max(0, part)) });

  /** Part two pictures in the frame of the upper one (null for no curtain): its `elements` are seen to the right of the line. */
  function show(over, elements = []) {
    for (const one of cut) if (over === null || !elements.includes(one)) one.style.clipPath = "";
    frame = over;
    cut = over === null ? [] : elements;
    line.hidden = over === null;
    if (over !== null) place(app.store.get().curtain);
  }

  function place(part) {
    if (frame === null) return;
    const [all, box] = [home.getBoundingClientRect(), frame.getBoundingClientRect()];
    const left = Math.round(part * box.width);
    for (const one of cut) one.style.clipPath = `inset(0 0 0 ${left}px)`;
    line.style.left = `${left}px`;
    line.style.top = `${box.top - all.top}px`;
    line.style.height = `${box.height}px`;
    line.setAttribute("aria-valuenow", Math.round(100 * part));
    line.setAttribute("aria-valuetext", `${Math.round(100 * part)} % left`);
  }

  function move(event) {
    const box = home.getBoundingClientRect();
    set((event.clientX - box.left) / box.width);
  }
  line.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.stopPropagation();
    line.setPointerCapture(event.pointerId);
  });
  line.addEventListener("pointermove", (event) => {
    if (line.hasPointerCapture(event.pointerId)) move(event);
  });
  line.addEventListener("keydown", (event) => {
    const { curtain } = app.store.get();
    const step = event.shiftKey ? 0.1 : 0.01;
    const next = { ArrowLeft: curtain - step, ArrowRight: curtain + step, Home: 0, End: 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    set(next);
  });
  const stop = app.store.subscribe(["curtain"], ({ curtain }) => place(curtain));
  return {
    show,
    destroy() {
      stop();
      line.remove();
    },
  };
}
