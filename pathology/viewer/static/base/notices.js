// What the page has to say: a polite line for screen readers, and lines that stay until they are read.

import { button, element } from "./dom.js";

/**
 * @param {HTMLElement} root
 * @returns {{announce: function(string), say: function(string, object=), clear: function(string), destroy: function()}}
 */
export function createNotices(root) {
  const live = element("div", { class: "unseen", role: "status", "aria-live": "polite" });
  const lines = element("div", { class: "notices", role: "alert", "aria-label": "Messages" });
  root.append(live, lines);
  const shown = new Map();

  function clear(key) {
    const line = shown.get(key);
    if (line === undefined) return;
    clearTimeout(line.timer);
    line.element.remove();
    shown.delete(key);
  }

  return {
    /** Tell screen readers. */
    announce(text) {
      live.textContent = text;
    },
    /** Show a line; `kind` "error" or "note", the same `key` replaces, `action` is a {label, run}, notes go after a while. */
    say(text, { kind = "error", key = text, action = null, stays = kind === "error" } = {}) {
      clear(key);
      while (shown.size > 3) clear(shown.keys().next().value);
      const line = element(
        "div",
        { class: "notice", "data-kind": kind },
        element("span", { class: "notice-text" }, text),
        action && button(action.label, () => action.run()),
        button("Dismiss", () => clear(key), { class: "quiet" }),
      );
      lines.append(line);
      shown.set(key, { element: line, timer: stays ? undefined : setTimeout(() => clear(key), 6000) });
    },
    clear,
    destroy() {
      for (const key of [...shown.keys()]) clear(key);
      live.remove();
      lines.remove();
    },
  };
}
