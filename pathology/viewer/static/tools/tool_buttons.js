// What the pointer does, in the header: move the slide, draw a region, pick a tile.

import { button, element } from "../base/dom.js";

const TOOLS = { pan: "Move", lasso: "Draw", tile: "Tile" };
const TITLES = { pan: "Move the slide", lasso: "Draw a region", tile: "Pick a tile" };

/** @param {object} app @returns {{element: HTMLElement, destroy: function()}} */
export function createToolButtons(app) {
  const { store, commands } = app;
  const buttons = Object.entries(TOOLS).map(([tool, text]) =>
    button(text, () => (tool === "pan" ? store.set({ tool }) : commands.run(`tool.${tool}`)), {
      "data-tool": tool, title: `${TITLES[tool]} (${commands.keyOf(`tool.${tool}`)})`,
    }),
  );
  const group = element("span", { class: "segments tool-choice", role: "group", "aria-label": "What the pointer does" }, ...buttons);
  const figure = button("Figure", () => commands.run("figure"), { title: `Save the panes as a figure (${commands.keyOf("figure")})` });
  const whole = element("span", { class: "tool-buttons" }, group, figure);

  function show() {
    const { tool, page } = store.get();
    whole.hidden = page !== "slide";
    for (const one of buttons) one.setAttribute("aria-pressed", String(one.dataset.tool === tool));
  }
  const stop = store.subscribe(["tool", "page"], show);
  show();
  const tools = app.bar.querySelector(".page-tools");
  if (tools) tools.before(whole);
  else app.bar.append(whole);
  return {
    element: whole,
    destroy() {
      stop();
      whole.remove();
    },
  };
}
