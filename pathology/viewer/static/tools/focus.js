// Panels are drawn anew when numbers come: what had the focus keeps it.

/** Draw `home` anew by `draw()`; the control with the same `aria-label` or `data-key` gets the focus back. */
export function drawKeepingFocus(home, draw) {
  const held = home.contains(document.activeElement) ? document.activeElement : null;
  draw();
  if (held === null || held.isConnected) return;
  const same = ["data-key", "aria-label"].find((name) => held.hasAttribute(name));
  if (same) home.querySelector(`${held.localName}[${same}="${CSS.escape(held.getAttribute(same))}"]`)?.focus({ preventScroll: true });
}
