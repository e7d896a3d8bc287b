// The list of slides: only rows on the screen are elements, so that thousands are as quick as ten.

import { element } from "../base/dom.js";
import { heatPane, slidePane } from "./first_view.js";
import { count, logits } from "../base/numbers.js";
import { arranged, labelColumns, LIST, rowsOf, scoreColumns, SHOWN } from "./slide_rows.js";
import { createThumbnails } from "./thumbnails.js";

const SPARE = 4; // rows beyond the edge of the screen
const LABELS = 6; // columns of labels; more are found by search

/** The page that lists slides; its state is `list`. @param {object} app */
export function createListPage(app) {
  const { store, commands } = app;
  const thumbnails = createThumbnails(app);
  store.set({ list: { ...LIST, ...store.get().list } });
  let rows, shown, scores, labels, largest;
  let at = 0; // the row that Tab comes to

  const find = element("input", { type: "search", class: "find", placeholder: "Name or label", "aria-label": "Find slides by name or label" });
  const label = element("select", { "aria-label": "Only slides with this label" });
  const show = element("select", { "aria-label": "Which slides to show" });
  const told = element("p", { class: "told", role: "status" });
  const head = element("thead");
  const body = element("tbody");
  const table = element("table", { "aria-label": "Slides" }, head, body);
  const scroller = element("div", { class: "scroller", tabIndex: -1 }, table);
  const page = element(
    "section",
    { class: "list-page", "aria-label": "List of slides" },
    element("div", { class: "list-tools" }, find, label, show, told),
    scroller,
  );
  const filters = Object.entries(SHOWN).filter(([value]) => value !== "unread" || app.library.blind);
  show.append(...filters.map(([value, text]) => element("option", { value, text })));

  const set = (patch) => store.set({ list: { ...store.get().list, ...patch } });
  find.addEventListener("input", () => set({ find: find.value }));
  label.addEventListener("change", () => set({ label: label.value }));
  show.addEventListener("change", () => set({ show: show.value }));

  function read() {
    const { library } = app;
    rows = rowsOf(library);
    scores = scoreColumns(library);
    labels = labelColumns(library).slice(0, LABELS);
    largest = Math.max(...library.evidence.map((entry) => Math.abs(entry.score ?? 0)), 1e-12);
    const values = labels.map((name) => [name, [...new Set(rows.map(({ slide }) => String(slide.labels?.[name] ?? "")))]]);
    label.replaceChildren(
      element("option", { value: "", text: "Any label" }),
      ...values
        .filter(([, found]) => found.length > 1 && found.length <= 30)
        .map(([name, found]) =>
          element(
            "optgroup",
            { label: name },
            ...found
              .filter(Boolean)
              .sort()
              .map((value) => element("option", { value: `${name}=${value}`, text: value })),
          ),
        ),
    );
    label.hidden = label.options.length < 2;
    arrange();
  }

  function arrange() {
    const { list } = store.get();
    shown = arranged(rows, list);
    app.order = shown.map(({ slide }) => slide.id);
    at = Math.min(at, Math.max(0, shown.length - 1));
    if (find.value !== list.find) find.value = list.find;
    label.value = list.label;
    show.value = list.show;
    told.textContent =
      shown.length === rows.length ? `${count(rows.length)} slides` : `${count(shown.length)} of ${count(rows.length)} slides`;
    head.replaceChildren(heading(list));
    table.setAttribute("aria-rowcount", shown.length + 1);
    scroller.scrollTop = 0;
    draw();
  }

  function heading({ sort, descending }) {
    const column = (key, text, small, kind) => {
      const isSorted = sort === key;
      const run = () => set({ sort: key, descending: isSorted ? !descending : kind === "score" });
      return element(
        "th",
        { scope: "col", class: kind, "aria-sort": isSorted ? (descending ? "descending" : "ascending") : "none" },
        element(
          "button",
          { type: "button", onclick: run, title: `Sort by ${small ? `${text}, ${small}` : text}` },
          element("span", { text }),
          small ? element("small", { text: small }) : null,
        ),
      );
    };
    return element(
      "tr",
      {},
      element("th", { scope: "col", class: "picture" }, element("span", { class: "unseen", text: "Thumbnail" })),
      column("name", "Slide", null, "name"),
      ...labels.map((name) => column(`label:${name}`, name, null, "label")),
      ...scores.map(({ key, run, target }) => column(`score:${key}`, target, run.name, "score")),
    );
  }

  // --- rows on the screen

  let drawn = [0, 0];
  function draw() {
    const height = rowHeight();
    const from = Math.max(0, Math.floor(scroller.scrollTop / height) - SPARE);
    const to = Math.min(shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + SPARE);
    drawn = [from, to];
    const visible = shown.slice(from, to);
    thumbnails.keep(new Set(visible.map(({ slide }) => slide.id)));
    const had = body.contains(document.activeElement) || body.contains(page.getRootNode().activeElement);
    const columns = 2 + labels.length + scores.length;
    body.replaceChildren(
      space(from * height, columns),
      ...visible.map((row, offset) => line(row, from + offset)),
      space((shown.length - to) * height, columns),
    );
    if (shown.length === 0) body.replaceChildren(element("tr", {}, element("td", { colSpan: columns, class: "none", text: nothing() })));
    if (had) body.querySelector(`[data-row="${at}"] .open`)?.focus({ preventScroll: true });
  }

  function nothing() {
    return rows.length === 0 ? "There are no slides in the folder that was given." : "No slide is like that. Clear the search or the filters.";
  }

  function space(height, columns) {
    if (height <= 0) return "";
    const cell = element("td", { colSpan: columns });
    cell.style.height = `${height}px`;
    return element("tr", { class: "space", "aria-hidden": "true" }, cell);
  }

  function rowHeight() {
    return 5 * parseFloat(getComputedStyle(page).fontSize); // as .list-page tr in viewer.css
  }

  function line({ slide, entries, isHidden, problems }, index) {
    const image = element("img", { alt: "", width: 80, height: 60, decoding: "async" });
    if (!slide.problem) thumbnails.show(image, slide.id);
    const reading = !app.library.blind ? null : slide.committed ? "read" : "to be read";
    const open = element("button", {
      type: "button",
      class: "open",
      text: slide.name,
      tabIndex: index === at ? 0 : -1,
      "aria-disabled": Boolean(slide.problem),
      onclick: () => app.openSlide(slide.id),
      onfocus: () => (at = index),
    });
    const row = element(
      "tr",
      { "data-row": index, "aria-rowindex": index + 2, class: slide.problem ? "faulty" : "" },
      element("td", { class: "picture" }, element("div", { class: "thumbnail" }, slide.problem ? null : image)),
      element(
        "td",
        { class: "name" },
        open,
        problems.length > 0 ? element("p", { class: "problem", text: problems[0], title: problems.join("\n") }) : null,
        reading && !slide.problem ? element("p", { class: "aside", text: reading }) : null,
      ),
      ...labels.map((name) => element("td", { class: "label", text: String(slide.labels?.[name] ?? ""), title: String(slide.labels?.[name] ?? "") })),
      ...scores.map((column) => element("td", { class: "score" }, isHidden ? hidden() : score(slide, entries.get(column.key), column, index))),
    );
    row.addEventListener("click", (event) => {
      if (event.target.closest("button") === null) app.openSlide(slide.id);
    });
    return row;
  }

  function hidden() {
    return element("span", { class: "absent", text: "hidden", title: "hidden until you have committed your reading" });
  }

  function score(slide, entry, { run, target }, index) {
    if (entry === undefined) return element("span", { class: "absent", text: "–", title: "not explained" });
    const notes = [];
    if (entry.is_closed === false) notes.push(["problem", `gap ${Number(entry.gap).toPrecision(2)}`, "bias and contributions do not add up to the score"]);
    if (entry.undivided) {
      const many = typeof entry.undivided === "number" ? count(entry.undivided) : "some";
      notes.push(["aside", `${many} undivided`, "tiles whose contribution is spread evenly over them"]);
    }
    const value = entry.score === null || entry.score === undefined ? "?" : logits(entry.score, 2);
    const isClosed = entry.is_closed === true;
    const bar = element("span", { class: "score-bar", "data-side": entry.score < 0 ? "against" : "for" }, element("span"));
    bar.firstChild.style.width = `${(50 * Math.abs(entry.score ?? 0)) / largest}%`;
    return element(
      "button",
      {
        type: "button",
        tabIndex: index === at ? 0 : -1,
        title: isClosed ? `The ledger closes: gap ${Number(entry.gap).toPrecision(2)} logits` : null,
        "aria-label": `${slide.name}, ${run.name}, ${target}: ${value} logits${isClosed ? ", ledger closed" : ""}${notes.map(([, text]) => `, ${text}`).join("")}; open`,
        onfocus: () => (at = index),
        onclick: () => app.openSlide(slide.id, [slidePane(slide.id), heatPane(slide.id, entry.id)]),
      },
      element("span", { class: "number", text: value }),
      bar,
      ...notes.map(([kind, text, title]) => element("small", { class: kind, text, title })),
    );
  }

  // --- keys and scrolling

  function go(to) {
    if (shown.length === 0) return;
    at = Math.max(0, Math.min(shown.length - 1, to));
    const height = rowHeight();
    const room = scroller.clientHeight - head.offsetHeight;
    if (at * height < scroller.scrollTop) scroller.scrollTop = at * height;
    else if ((at + 1) * height > scroller.scrollTop + room) scroller.scrollTop = (at + 1) * height - room;
    draw();
    body.querySelector(`[data-row="${at}"] .open`)?.focus({ preventScroll: true });
  }

  let frame = null;
  scroller.addEventListener("scroll", () => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      const height = rowHeight();
      const first = Math.floor(scroller.scrollTop / height);
      const last = Math.ceil((scroller.scrollTop + scroller.clientHeight) / height);
      if (first < drawn[0] || Math.min(last, shown.length) > drawn[1]) draw();
    });
  });
  const observer = new ResizeObserver(() => shown && draw());
  observer.observe(scroller);

  const pageful = () => Math.max(1, Math.floor(scroller.clientHeight / rowHeight()) - 1);
  const group = "List of slides";
  const keys = [
    commands.add({ id: "row-down", key: "ArrowDown", label: "Next row", group, page: "list", run: () => go(inBody() ? at + 1 : at) }),
    commands.add({ id: "row-up", key: "ArrowUp", label: "Row before", group, page: "list", run: () => go(at - 1) }),
    commands.add({ id: "rows-down", key: "PageDown", label: "A screen down", group, page: "list", run: () => go(at + pageful()) }),
    commands.add({ id: "rows-up", key: "PageUp", label: "A screen up", group, page: "list", run: () => go(at - pageful()) }),
    commands.add({ id: "row-first", key: "Home", label: "First row", group, page: "list", run: () => go(0) }),
    commands.add({ id: "row-last", key: "End", label: "Last row", group, page: "list", run: () => go(shown.length - 1) }),
    commands.add({ id: "find", key: "/", label: "Find slides", group, page: "list", run: () => find.focus() }),
  ];
  const inBody = () => body.contains(page.getRootNode().activeElement);
  find.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      event.stopPropagation();
      go(0);
    } else if (event.key === "Escape" && find.value !== "") {
      event.preventDefault();
      event.stopPropagation();
      set({ find: "" });
    }
  });

  const ends = [
    store.subscribe(["library"], read),
    store.subscribe(["list"], arrange),
    store.subscribe(["page"], ({ page: now, slide }) => {
      if (now !== "list") return;
      const back = shown.findIndex((row) => row.slide.id === slide);
      requestAnimationFrame(() => go(back >= 0 ? back : at)); // where one came from
    }),
  ];
  read();
  return {
    element: page,
    destroy() {
      for (const end of [...ends, ...keys]) end();
      observer.disconnect();
      cancelAnimationFrame(frame);
      thumbnails.destroy();
      page.remove();
    },
  };
}
