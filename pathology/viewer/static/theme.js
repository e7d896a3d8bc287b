// Dark, light, or as the system has it.

const THEMES = ["auto", "dark", "light"];

/** Puts the theme on the root; its colours are in viewer.css. @param {object} app */
export function createTheme(app) {
  const { store, root, commands } = app;
  const show = ({ theme }) => (root.dataset.theme = theme);
  const stop = store.subscribe(["theme"], show);
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
