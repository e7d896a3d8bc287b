// A slide's regions between visits: kept in this browser, so that closing the page loses none. Nothing leaves the machine.

const PREFIX = "bcos-pathology.regions.";

/** Slides of two libraries may have one name: the size has to be the same, too. */
const keyOf = (slide) => `${PREFIX}${slide.id}.${slide.size.join("x")}.${slide.mpp.join("x")}`;

/**
 * @param {boolean} isLasting false where slides' ids mean nothing beyond this page, as in a notebook's cell: then regions last as long as it
 * @returns {{kept: function(object): object[], keep: function(object, object[]): boolean, on: function(function(string)): function()}}
 *   `kept` and `keep` take a slide as api/slides tells it; `keep` is false where regions last only as long as the page; `on` hears of
 *   slides, by id, whose regions another tab has changed
 */
export function createRegionStore(isLasting) {
  const memory = new Map();
  return {
    kept(slide) {
      if (memory.has(slide.id) || !isLasting) return memory.get(slide.id) ?? [];
      try {
        const found = JSON.parse(localStorage.getItem(keyOf(slide)) ?? "[]");
        return Array.isArray(found) ? found.filter((region) => isRegion(region, slide.id)) : [];
      } catch {
        return [];
      }
    },
    keep(slide, regions) {
      memory.set(slide.id, regions);
      if (!isLasting) return regions.length === 0;
      try {
        if (regions.length) localStorage.setItem(keyOf(slide), JSON.stringify(regions));
        else localStorage.removeItem(keyOf(slide));
        return true;
      } catch {
        return false; // more than the browser takes, or it takes nothing
      }
    },
    on(listener) {
      const heard = ({ key }) => {
        const slide = key?.startsWith(PREFIX) ? key.slice(PREFIX.length).split(".")[0] : null;
        if (slide === null) return;
        memory.delete(slide);
        listener(slide);
      };
      if (isLasting) addEventListener("storage", heard);
      return () => removeEventListener("storage", heard);
    },
  };
}

function isRegion(region, slide) {
  return (
    region?.slide === slide &&
    typeof region.id === "string" &&
    typeof region.name === "string" &&
    Array.isArray(region.polygons) &&
    region.polygons.every((rings) => rings.length && rings.every((ring) => ring.length > 2 && ring.flat().every(Number.isFinite)))
  );
}
