// Regions from files and to files: GeoJSON as QuPath has it, XML of ASAP and Aperio.

import { element } from "../base/dom.js";
import { download, fileName } from "../base/copy.js";
import { activeEvidence, activeSlide, nameOf } from "../base/shown.js";
import { slideOf } from "../base/names.js";
import { isOutside } from "./overlay.js";

/**
 * @param {object} app
 * @param {object} regions as `createRegions` makes them
 */
export function createAnnotations(app, regions) {
  const chooser = element("input", {
    type: "file", accept: ".geojson,.json,.xml", multiple: true, hidden: true, "aria-label": "Annotation files",
    onchange: async () => {
      await bring([...chooser.files]);
      chooser.value = "";
    },
  });
  app.root.append(chooser);

  async function bring(files) {
    const slide = activeSlide(app);
    if (!slide) return;
    for (const file of files) {
      try {
        app.notify(`Reading ${file.name}…`, { kind: "note", key: file.name, stays: true });
        const body = await file.text();
        const told = await app.transport.json(`api/slides/${slide}/annotations`, { method: "POST", body });
        app.clear(file.name);
        regions.bring(told.regions, slide);
        const many = told.regions.length;
        app.announce(`${many} ${many === 1 ? "region" : "regions"} from ${file.name}.`);
        if (many && app.store.get().panel !== "regions") app.store.set({ panel: "regions" });
        for (const note of [told.notes ?? []].flat()) app.notify(`${file.name}: ${note}`, { kind: "note" });
        warnOutside(told.regions, slide, file.name);
      } catch (error) {
        if (error.name === "AbortError") app.clear(file.name);
        else app.notify(`${file.name}: ${error.message.replace(/^the file:? /, "")}`, { key: file.name });
      }
    }
  }

  // A file of another slide has no sums here, and nobody would see why.
  function warnOutside(found, slide, name) {
    const isOff = found.filter(({ polygons }) => isOutside(app, polygons.flat(2), slide));
    if (isOff.length)
      app.notify(`${name}: ${isOff.length} of ${found.length} regions lie outside this slide. Are they of another slide, or of another level?`);
  }

  async function send() {
    const evidence = activeEvidence(app);
    const list = regions.list();
    if (!evidence || !list.length) return;
    try {
      const body = { regions: list.map(({ id, name, classes, colour, polygons }) => ({ id, name, classes, colour, polygons })) };
      const told = await app.transport.json(`api/evidence/${evidence}/export`, { method: "POST", body });
      const slide = slideOf(app.library, activeSlide(app));
      const name = fileName(slide?.name ?? "slide", nameOf(app, evidence), "regions.geojson");
      download(app.root, new Blob([JSON.stringify(told)], { type: "application/geo+json" }), name);
      const many = list.length === 1 ? "1 region" : `${list.length} regions`;
      app.notify(`${many} with the numbers of ${nameOf(app, evidence)} saved as ${name}.`, { kind: "note", key: "export" });
    } catch (error) {
      app.fail(error);
    }
  }

  const isFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (event) => {
    if (!isFiles(event) || app.store.get().page !== "slide") return;
    event.preventDefault();
    app.root.classList.add("is-dropping");
  };
  const leave = (event) => {
    if (!app.root.contains(event.relatedTarget)) app.root.classList.remove("is-dropping");
  };
  const drop = (event) => {
    if (!isFiles(event)) return;
    event.preventDefault(); // else the browser would leave the page
    app.root.classList.remove("is-dropping");
    if (app.store.get().page === "slide") void bring([...event.dataTransfer.files]);
  };
  const listeners = { dragover: over, dragleave: leave, drop };
  for (const [name, listener] of Object.entries(listeners)) app.root.addEventListener(name, listener);

  const group = "Regions";
  const offs = [
    app.commands.add({
      id: "region.import", key: "Shift+I", label: "Import annotations (GeoJSON, ASAP or Aperio XML)", group,
      enabled: () => app.store.get().page === "slide", run: () => chooser.click(),
    }),
    app.commands.add({
      id: "region.export", key: "Shift+X", label: "Export regions with their numbers as GeoJSON", group,
      enabled: () => regions.list().length > 0 && activeEvidence(app) !== null, run: send,
    }),
  ];
  return {
    destroy() {
      for (const [name, listener] of Object.entries(listeners)) app.root.removeEventListener(name, listener);
      for (const off of offs) off();
      chooser.remove();
    },
  };
}
