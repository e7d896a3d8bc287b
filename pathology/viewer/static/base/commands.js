// Everything a mouse can do has a command: a key, and a line in the help. Keys are heard on the root, so that a viewer in a notebook
// cell takes only its own.

/**
 * @param {{root: HTMLElement, store: object}} app
 * @returns {{add: function(object): function(), list: function(): object[], here: function(): object[], run: function(string), keyOf: function(string): string}}
 */
export function createCommands(app) {
  const commands = new Map();

  /**
   * Add a command `{id, key, label, group, run, enabled, page}`. `key` as in KeyboardEvent.key, with "Ctrl+", "Alt+" and, before letters
   * and named keys, "Shift+" ("l", "Shift+L", "?", "ArrowLeft"); several in an array; null for none. `enabled()` may say no; `page` is
   * "slide" unless it says "list" or "any". Returns what takes it away.
   */
  function add(command) {
    const made = { group: "Other", enabled: () => true, page: "slide", ...command, keys: [command.key ?? []].flat() };
    if (commands.has(made.id)) throw new Error(`two commands are called ${made.id}`);
    for (const other of commands.values()) {
      if (made.page !== "any" && other.page !== "any" && made.page !== other.page) continue;
      const clash = made.keys.find((key) => other.keys.includes(key));
      if (clash !== undefined) reportError(new Error(`${made.id} wants the key ${clash}, which is ${other.id}'s`));
    }
    commands.set(made.id, made);
    return () => commands.delete(made.id);
  }

  const isOn = (command) => ["any", app.store.get().page].includes(command.page) && command.enabled();

  function heard(event) {
    if (event.defaultPrevented || event.isComposing || takesTyping(event)) return;
    if (app.root.querySelector("dialog[open]:modal") !== null) return;
    const name = keyName(event);
    for (const command of commands.values()) {
      if (!command.keys.includes(name) || !isOn(command)) continue;
      event.preventDefault();
      event.stopPropagation(); // a notebook has keys of its own
      command.run(event);
      return;
    }
  }
  app.root.addEventListener("keydown", heard);

  return {
    add,
    list: () => [...commands.values()],
    /** Those of the page that is shown. */
    here: () => [...commands.values()].filter((command) => ["any", app.store.get().page].includes(command.page)),
    /** Run a command by id, if it is enabled. */
    run(id) {
      const command = commands.get(id);
      if (command !== undefined && isOn(command)) command.run();
    },
    /** The first key of a command as shown to people, "" if it has none. */
    keyOf: (id) => shownKey(commands.get(id)?.keys[0]),
    destroy: () => app.root.removeEventListener("keydown", heard),
  };
}

const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space" };

/** A key as people read it. @param {string|undefined} key @returns {string} */
export function shownKey(key) {
  if (key === undefined) return "";
  const parts = key === "+" ? ["+"] : key.split("+");
  return parts.map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join("+");
}

function keyName(event) {
  let name = event.key;
  const isLetter = /^\p{L}$/u.test(name);
  if (isLetter) name = event.shiftKey ? name.toUpperCase() : name.toLowerCase(); // whatever caps lock says
  if (event.shiftKey && (isLetter || name.length > 1)) name = `Shift+${name}`;
  if (event.getModifierState("AltGraph")) return name; // how some keyboards write "[" or "@"
  if (event.altKey) name = `Alt+${name}`;
  if (event.ctrlKey || event.metaKey) name = `Ctrl+${name}`;
  return name;
}

function takesTyping(event) {
  const target = event.target;
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (target.isContentEditable || target.localName === "textarea") return true;
  if (target.localName === "select") return plain;
  if (target.localName === "input") {
    if (target.type === "checkbox" || target.type === "radio") return event.key === " " || event.key.startsWith("Arrow");
    if (target.type === "range") return /^(Arrow|Page|Home|End)/.test(event.key);
    return true;
  }
  const isPressed = ["button", "a", "summary"].includes(target.localName);
  return isPressed && (event.key === "Enter" || event.key === " ");
}
