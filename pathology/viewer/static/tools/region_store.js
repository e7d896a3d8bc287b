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
  const unwritten = new Set(); // slides whose regions the browser did not take

  function stored(slide) {
    if (!isLasting) return [];
    try {
      const found = JSON.parse(localStorage.getItem(keyOf(slide)) ?? "[]");
      return Array.isArray(found) ? found.filter((region) => isRegion(region, slide.id)) : [];
    } catch {
      return [];
    }
  }

  return {
    kept(slide) {
      if (!memory.has(slide.id)) memory.set(slide.id, stored(slide));
      return memory.get(slide.id);
    },
    keep(slide, regions) {
      const before = unwritten.has(slide.id) ? [] : (memory.get(slide.id) ?? []);
      memory.set(slide.id, regions);
      if (!isLasting) return regions.length === 0;
      try {
        const all = merged(stored(slide), before, regions);
        if (all.length) localStorage.setItem(keyOf(slide), JSON.stringify(all));
        else localStorage.removeItem(keyOf(slide));
        unwritten.delete(slide.id);
        return true;
      } catch {
        unwritten.add(slide.id);
        return false; // more than the browser takes, or it takes nothing
      }
    },
    on(listener) {
      const heard = ({ key }) => {
        const slide = key?.startsWith(PREFIX) ? key.slice(PREFIX.length).split(".")[0] : null;
        if (slide === null || unwritten.has(slide)) return; // what only this tab has stays
        memory.delete(slide);
        listener(slide);
      };
      if (isLasting) addEventListener("storage", heard);
      return () => removeEventListener("storage", heard);
    },
  };
}

/** What another tab may have stored meanwhile, with what this one has changed from `before` to `after`. */
function merged(stored, before, after) {
  if (stored.length === before.length && stored.every(({ id }, i) => id === before[i].id)) return after;
  const [was, now] = [before, after].map((regions) => new Map(regions.map((region) => [region.id, region])));
  const left = stored.filter(({ id }) => now.has(id) || !was.has(id));
  const known = new Set(stored.map(({ id }) => id));
  return [
    ...left.map((region) => (now.has(region.id) && now.get(region.id) !== was.get(region.id) ? now.get(region.id) : region)),
    ...after.filter(({ id }) => !was.has(id) && !known.has(id)),
  ];
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
