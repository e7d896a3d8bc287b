// Which other slide a pane shall show.

import { button, element } from "../base/dom.js";
import { firstPanes } from "../list/first_view.js";
import { slideOf } from "../base/names.js";
import { changed } from "./pane_choices.js";
import { arranged, LIST, rowsOf } from "../list/slide_rows.js";

const MOST = 50;

/** A dialog that puts another slide into a pane; `ask(index)` opens it. @param {object} app */
export function createOtherSlide(app) {
  const { store } = app;
  let index = 0;
  const find = element("input", { type: "search", placeholder: "Name or label", "aria-label": "Find slides by name or label" });
  const list = element("ul", { class: "choices" });
  const told = element("p", { class: "aside", role: "status" });
  const dialog = element(
    "dialog",
    { class: "other-slide", "aria-label": "Another slide" },
    element("div", { class: "dialog-head" }, element("h2", { text: "Another slide" }), button("Close", () => dialog.close())),
    find,
    told,
    list,
  );
  app.root.append(dialog);

  function choose(id) {
    dialog.close();
    const pane = firstPanes(app.library, id).at(-1); // heat, if there is any
    store.set({ panes: changed(store.get().panes, index, pane), active: index });
    app.announce(`Pane ${index + 1}: ${slideOf(app.library, id).name}`);
  }

  function show() {
    const rows = arranged(rowsOf(app.library), { ...LIST, find: find.value }).filter(({ slide }) => !slide.problem);
    told.textContent = rows.length > MOST ? `The first ${MOST} of ${rows.length}` : rows.length === 0 ? "No slide is called that." : "";
    list.replaceChildren(...rows.slice(0, MOST).map(({ slide }) => element("li", {}, button(slide.name, () => choose(slide.id)))));
  }
  find.addEventListener("input", show);
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter") list.querySelector("button")?.click();
  });

  return {
    ask(pane) {
      index = pane;
      find.value = "";
      show();
      dialog.showModal();
      find.focus();
    },
    destroy: () => dialog.remove(),
  };
}
