// The help: every command with its key.

import { button, element } from "./dom.js";
import { shownKey } from "./commands.js";

/** The dialog that "?" opens. @param {object} app */
export function createHelp(app) {
  const title = element("h2", { text: "Keys" });
  const lists = element("div", { class: "help-groups" });
  const dialog = element(
    "dialog",
    { class: "help", "aria-label": "Keys" },
    element("div", { class: "dialog-head" }, title, button("Close", () => dialog.close())),
    lists,
  );
  app.root.append(dialog);

  function open() {
    const groups = Map.groupBy(
      app.commands.here().filter((command) => command.keys.length > 0),
      (command) => command.group,
    );
    lists.replaceChildren(
      ...[...groups].map(([group, commands]) =>
        element(
          "section",
          {},
          element("h3", { text: group }),
          element("dl", {}, ...commands.map(line)),
        ),
      ),
    );
    dialog.showModal();
  }

  function line({ keys, label }) {
    const isRange = keys.length > 3; // 1 to 9
    const shown = (isRange ? [keys[0], keys.at(-1)] : keys).map((key) => element("kbd", { text: shownKey(key) }));
    const between = isRange ? " to " : " ";
    return element("div", {}, element("dt", {}, ...shown.flatMap((key, at) => (at > 0 ? [between, key] : [key]))), element("dd", { text: label }));
  }

  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  app.commands.add({ id: "help", key: "?", label: "This help", group: "Page", page: "any", run: open });
  app.openHelp = open;
  return { destroy: () => dialog.remove() };
}
