// The list of regions: name, sum, share; and what classes, and all regions together, hold.

import { button, element } from "../base/dom.js";
import { copyText } from "../base/copy.js";
import { decimalsFor, exact, logits, percent, plain } from "../base/numbers.js";
import { drawKeepingFocus } from "./focus.js";
import { classesOf } from "./regions.js";
import { shownEvidence } from "../base/shown.js";

const LONG = 12; // regions of a list whose sums stand before it, where they are seen

/**
 * @param {object} app
 * @param {object} parts `regions`, `sums`
 */
export function createRegionsPanel(app, { regions, sums }) {
  const { commands, store } = app;
  const body = element("div");
  const act = (id, text) => button(text, () => commands.run(id), { "data-command": id });
  const panel = element(
    "div", { class: "tool-panel" },
    element(
      "div", { class: "tool-actions" },
      act("tool.lasso", "Draw"), act("region.view", "The view"), act("region.import", "Import…"), act("region.export", "Export"),
      act("region.copy", "Copy as table"), act("region.clear", "Delete all"), act("region.restore", "Undo delete"),
    ),
    body,
  );
  let isShown = false;
  let unions = new Map(); // members' geometries -> what is asked for all of them together

  // One object per set of geometries, so that its sum is asked once.
  function unionOf(name, members) {
    const kept = unions.get(name);
    if (kept && kept.members.length === members.length && kept.members.every((member, i) => member === members[i].polygons))
      return kept.region;
    const region = { id: name, name, polygons: members.flatMap((member) => member.polygons) };
    unions.set(name, { members: members.map((member) => member.polygons), region });
    return region;
  }

  function groupsOf(list) {
    const byClass = new Map();
    for (const region of list.filter((candidate) => candidate.kind === "annotation"))
      for (const name of classesOf(region)) byClass.set(name, [...(byClass.get(name) ?? []), region]);
    const groups = [...byClass].filter(([, members]) => members.length > 1 || members[0].name !== members[0].classes?.[0])
      .map(([name, members]) => ({ label: `class ${name}`, many: members.length, region: unionOf(`class ${name}`, members) }));
    if (list.length > 1) groups.push({ label: "all together", many: list.length, region: unionOf("all together", list) });
    return groups;
  }

  const numbersOf = (evidence, region) => {
    const answer = sums.get(evidence, region);
    if (answer === "pending") return { text: ["…", ""], isPending: true };
    if (answer instanceof Error) return { text: ["–", ""], problem: answer.message };
    return { answer };
  };

  function cells(region, id, decimals) {
    const { answer, text, problem, isPending } = numbersOf(id, region);
    const told = answer ? [logits(answer.sum, decimals), percent(answer.share)] : text;
    return told.map((words) => {
      const made = element("td", { class: "ledger-number", text: words, title: problem ?? "" });
      if (isPending) made.setAttribute("aria-busy", "true");
      return made;
    });
  }

  function areaOf(region, shown) {
    for (const { id } of shown) {
      const { answer } = numbersOf(id, region);
      if (answer) return plain(answer.area_mm2, 3);
    }
    return "";
  }

  function nameField(region) {
    return element("input", {
      class: "region-name", type: "text", value: region.name, "aria-label": "Name of the region", maxLength: 200,
      onchange: (event) => {
        regions.rename(region.id, event.target.value);
        render();
      },
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      },
      onfocus: () => store.get().selected !== region.id && regions.select(region.id),
    });
  }

  function render() {
    if (!isShown) return;
    for (const control of panel.querySelectorAll("[data-command]"))
      control.disabled = !commands.list().find((command) => command.id === control.dataset.command)?.enabled();
    if (panel.querySelector(".region-name:focus")) return update(); // who types a name is not interrupted
    const list = regions.list();
    const shown = shownEvidence(app);
    if (!list.length) {
      body.replaceChildren(element("p", {
        class: "tool-note",
        text: "Draw around something to get its exact part of the score: drag, click corner by corner, or by keys: " +
          `${commands.keyOf("tool.lasso")}, then ${commands.keyOf("tool.here")} at each corner. Files of annotations can be dropped on the page.`,
      }));
      return;
    }
    const decimals = Math.max(4, decimalsFor(shown.flatMap(({ id }) => list.map((region) => numbersOf(id, region).answer?.sum ?? 0))));
    const isOne = shown.length === 1;
    const heads = ["Region", ...(shown.length ? ["logits", "share"] : []), "mm²"];
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text, "data-column": text, title: text === "share" ? "Of the sum of the map" : "" })), element("td", { "data-column": "acts" }));
    // One explanation: a line for each region. Several: under each region a line for each of them.
    const gap = () => (shown.length ? [element("td", {}), element("td", {})] : []);
    const linesOf = (region, decimals) =>
      isOne ? [] : shown.map(({ id, name, pane }) =>
        element("tr", { class: "region-of" }, element("th", { scope: "row", text: pane, title: name }), ...cells(region, id, decimals), element("td", {}), element("td", {})));
    const own = (region) => (isOne ? cells(region, shown[0].id, decimals) : gap());
    const rowOf = (region) => {
      const isChosen = region.id === store.get().selected;
      const swatch = region.colour ? element("span", { class: "region-swatch", "aria-hidden": "true" }) : null;
      if (swatch) swatch.style.background = region.colour;
      const line = element(
        "tr",
        {
          class: isChosen ? "region-row is-selected" : "region-row", "data-id": region.id, "aria-current": String(isChosen),
          onclick: (event) => event.target.closest("button, input") || regions.select(region.id),
          ondblclick: () => regions.fly(region),
        },
        element("th", { scope: "row" }, element("span", { class: "region-head" }, swatch, nameField(region))),
        ...own(region),
        element("td", { class: "ledger-number", text: areaOf(region, shown) }),
        element(
          "td", { class: "region-acts" },
          button("Go", () => (regions.select(region.id), regions.fly(region)), { "aria-label": `Go to ${region.name}` }),
          button("×", () => regions.remove([region.id]), { "aria-label": `Delete ${region.name}` }),
        ),
      );
      return element("tbody", {}, line, ...linesOf(region, decimals));
    };
    const groupOf = ({ label, many, region }) =>
      element(
        "tbody", { class: "ledger-sums" },
        element(
          "tr", { "data-group": label }, element("th", { scope: "row", text: `${label} (${many})`, title: "Where they overlap, counted once" }),
          ...own(region), element("td", { class: "ledger-number", text: areaOf(region, shown) }), element("td", {}),
        ),
        ...linesOf(region, decimals),
      );
    const [rows, groups] = [list.map(rowOf), groupsOf(list).map(groupOf)];
    drawKeepingFocus(body, () => body.replaceChildren(
      element(
        "div", { class: "tool-scroll" },
        element("table", { class: "ledger regions" }, element("thead", {}, head), ...(list.length > LONG ? [...groups, ...rows] : [...rows, ...groups])),
      ),
    ));
    for (const problem of new Set(shown.flatMap(({ id }) => list.map((region) => numbersOf(id, region).problem)).filter(Boolean)))
      body.append(element("p", { class: "tool-problem" }, problem, " ", button("Try again", () => sums.retry())));
    if (!shown.length) body.append(element("p", { class: "tool-note", text: "No pane shows an explanation: there is nothing to sum." }));
  }

  function update() {
    const chosen = store.get().selected;
    for (const row of body.querySelectorAll(".region-row")) {
      row.classList.toggle("is-selected", row.dataset.id === chosen);
      row.setAttribute("aria-current", String(row.dataset.id === chosen));
    }
  }

  function textOf() {
    const shown = shownEvidence(app);
    const heads = shown.flatMap(({ name }) => [`${name}: logits`, `${name}: share of the map`, `${name}: mm²`, `${name}: logits/mm²`]);
    const line = (label, region) => [label, ...shown.flatMap(({ id }) => {
      const { answer } = numbersOf(id, region);
      return [answer?.sum, answer?.share, answer?.area_mm2, answer?.density].map(exact);
    })].join("\t");
    const list = regions.list();
    return [["region", ...heads].join("\t"), ...list.map((region) => line(region.name, region)), ...groupsOf(list).map(({ label, region }) => line(label, region))].join("\n");
  }

  const offs = [
    store.subscribe(["regions", "selected", "panes", "active"], render),
    sums.on(render),
    commands.add({
      id: "region.copy", key: null, label: "Copy the regions as a table", group: "Regions", enabled: () => regions.list().length > 0,
      run: async () => app.announce((await copyText(app.root, textOf())) ? "The regions are copied." : "The browser did not let them be copied."),
    }),
    commands.add({
      id: "region.rename", key: "F2", label: "Rename the selected region", group: "Regions", enabled: () => regions.selected() !== null,
      run: () => {
        store.set({ panel: "regions" });
        const field = body.querySelector(`[data-id="${store.get().selected}"] .region-name`);
        field?.focus();
        field?.select();
      },
    }),
  ];
  return {
    element: panel,
    show(now) {
      isShown = now;
      if (now) render();
    },
    destroy() {
      for (const off of offs) off();
    },
  };
}
