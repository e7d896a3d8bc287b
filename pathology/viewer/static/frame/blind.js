// Blind mode: the reader says what they see before the model's answer is shown. The server keeps the answer back; this only asks.

import { button, element, freshId } from "../base/dom.js";
import { firstPanes } from "../list/first_view.js";
import { describe, evidenceOf, slideOf } from "../base/names.js";
import { logits } from "../base/numbers.js";

/** The form for a reading, and what was said against what the model says. @param {object} app */
export function createBlind(app) {
  const { store, root } = app;
  const place = element("section", { class: "blind", "aria-label": "Your reading" });
  place.hidden = true;
  if (!app.library.blind) return { destroy() {} };
  const made = new Map(); // slide -> what was said of it here

  function show() {
    const { slide, page } = store.get();
    const entry = slideOf(app.library, slide);
    const isOpen = page === "slide" && entry !== null && !entry.committed;
    root.dataset.blind = isOpen ? "reading" : "read";
    place.hidden = page !== "slide" || entry === null || (entry.committed && !made.has(slide));
    if (place.dataset.of === `${slide} ${entry?.committed}`) return; // what is being written stays
    place.dataset.of = `${slide} ${entry?.committed}`;
    place.replaceChildren(...(place.hidden ? [] : isOpen ? form(slide) : answer(slide)));
  }

  function form(slide) {
    const known = [...new Set([...made.values()].map(({ call }) => call))];
    const list = element("datalist", { id: freshId() }, ...known.map((value) => element("option", { value })));
    const call = element("input", { type: "text", maxLength: 200, required: true, autocomplete: "off", id: freshId() });
    call.setAttribute("list", list.id);
    const confidence = element("input", { type: "number", min: 0, max: 100, step: 1, inputMode: "numeric", id: freshId() });
    const note = element("textarea", { rows: 4, maxLength: 4000, id: freshId() });
    const problem = element("p", { class: "problem", role: "alert" });
    const commit = element("button", { type: "submit", class: "main", text: "Commit and show the prediction" });
    const field = (input, text) => element("div", { class: "field" }, element("label", { for: input.id, text }), input);
    const asked = element(
      "form",
      { noValidate: true },
      element("h2", { text: "Your reading" }),
      element("p", { class: "aside", text: "The prediction is shown once you have said what you see. A reading that is committed cannot be changed." }),
      field(call, "What does the slide show?"),
      field(confidence, "How sure are you, in per cent? (may be left out)"),
      field(note, "Note (may be left out)"),
      list,
      problem,
      commit,
    );
    asked.addEventListener("submit", async (event) => {
      event.preventDefault();
      problem.textContent = "";
      if (call.value.trim() === "") return refuse(call, problem, "Say what the slide shows.");
      if (!confidence.validity.valid) return refuse(confidence, problem, "Give a whole number from 0 to 100, or nothing.");
      const body = {
        call: call.value.trim(),
        confidence: confidence.value === "" ? null : Number(confidence.value),
        note: note.value.trim(),
      };
      const hasFocus = place.contains(root.getRootNode().activeElement);
      commit.disabled = true;
      try {
        await app.transport.json(`api/slides/${slide}/reading`, { method: "POST", body });
        made.set(slide, body);
        await app.reload();
        if (store.get().slide === slide) {
          const panes = firstPanes(app.library, slide);
          store.set({ panes, active: panes.length > 1 ? 1 : 0, view: null });
          app.announce("Your reading is committed; the prediction is shown.");
          if (hasFocus) place.querySelector("button")?.focus(); // what had it is gone
        }
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        commit.disabled = false;
      }
    });
    return [asked];
  }

  function refuse(input, problem, text) {
    problem.textContent = text;
    input.focus();
  }

  function answer(slide) {
    const { call, confidence, note } = made.get(slide);
    const entries = evidenceOf(app.library, slide);
    return [
      element(
        "div",
        { class: "dialog-head" },
        element("h2", { text: "Your reading and the prediction" }),
        button("Close", () => {
          app.focusPane();
          made.delete(slide);
          place.dataset.of = "";
          show();
        }),
      ),
      element(
        "dl",
        { class: "facts" },
        element("dt", { text: "You" }),
        element("dd", { text: confidence === null ? call : `${call}, ${confidence} % sure` }),
        note ? element("dt", { text: "Note" }) : null,
        note ? element("dd", { text: note }) : null,
        ...entries.flatMap((entry) => [
          element("dt", { text: describe(app.library, entry.id).title }),
          element("dd", { class: "number", text: entry.score === null ? "no score" : `${logits(entry.score, 2)} logits` }),
        ]),
        entries.length === 0 ? element("dd", { text: "There is no explanation of this slide." }) : null,
      ),
    ];
  }

  const stop = store.subscribe(["slide", "page", "library"], show);
  app.side.prepend(place);
  show();
  return {
    element: place,
    destroy() {
      stop();
      place.remove();
    },
  };
}
