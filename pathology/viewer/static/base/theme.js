// Dark, light, or as the system has it.

const THEMES = ["auto", "dark", "light"];
const KEPT = "pathology-viewer-theme";

/** Puts the theme on the root; its colours are in viewer.css. @param {object} app */
export function createTheme(app) {
  const { store, root, commands } = app;
  const isKept = app.options.link; // a page of its own remembers; a cell does as its notebook has it
  if (isKept) {
    const kept = storage((place) => place.getItem(KEPT));
    if (THEMES.includes(kept)) store.set({ theme: kept });
  }
  const show = ({ theme }) => (root.dataset.theme = theme);
  const stop = store.subscribe(["theme"], (state) => {
    show(state);
    if (isKept) storage((place) => place.setItem(KEPT, state.theme));
  });
  show(store.get());
  commands.add({
    id: "theme",
    key: "Shift+D",
    label: "Dark, light, or as the system has it",
    group: "Page",
    page: "any",
    run() {
      const theme = THEMES[(THEMES.indexOf(store.get().theme) + 1) % THEMES.length];
      store.set({ theme });
      app.announce(theme === "auto" ? "Colours of the page as the system has them" : `${theme} page`);
    },
  });
  return { destroy: stop };
}

function storage(use) {
  try {
    return use(localStorage);
  } catch {
    return null; // a browser that keeps nothing
  }
}
