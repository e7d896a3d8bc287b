// Elements without HTML strings: text is always text, so a slide's name can hold no markup.

/**
 * Make an element. `text` is its text; properties that begin with "on" are listeners; "class", "role", "for" and names with a hyphen
 * are attributes; all others are set as properties. null and undefined are left out.
 * @param {string} tag
 * @param {object} [properties]
 * @param {...(Node|string|null|undefined|Array)} children
 * @returns {HTMLElement}
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "text") made.textContent = value;
    else if (name === "class" || name === "role" || name === "for" || name.includes("-")) made.setAttribute(name, String(value));
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button. @param {string} text @param {function(Event)} run @param {object} [properties] @returns {HTMLButtonElement} */
export function button(text, run, properties = {}) {
  return element("button", { type: "button", text, onclick: run, ...properties });
}

/**
 * An SVG element with attributes.
 * @param {string} tag
 * @param {object} [attributes]
 * @param {...Node} children
 * @returns {SVGElement}
 */
export function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

let count = 0;

/** A fresh id, for labels: several viewers may stand in one notebook. @returns {string} */
export function freshId() {
  count += 1;
  return `pathology-viewer-${count}`;
}
