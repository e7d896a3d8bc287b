// A slide's regions between visits: kept in this browser, so that closing the page loses none. Nothing leaves the machine.

const PREFIX = "bcos-pathology.regions.";

/** Slides of two libraries may have one name: the size has to be the same, too. */
const prefixOf = (slide) => `${PREFIX}${slide.id}.${slide.size.join("x")}.${slide.mpp.join("x")}.`;

/**
 * Each region is under a key of its own, so that two tabs that write at the same moment lose nothing of each other's.
 *
 * @param {boolean} isLasting false where slides' ids mean nothing beyond this page, as in a notebook's cell: then regions last as long as it
 * @returns {{kept: function(object): object[], keep: function(object, object[]): boolean, on: function(function(string)): function()}}
 *   `kept` and `keep` take a slide as api/slides tells it; `keep` is false where regions last only as long as the page; `on` hears of
 *   slides, by id, whose regions another tab has changed
 */
export function createRegionStore(isLasting) {
  const memory = new Map();
  const unwritten = new Set(); // slides whose regions the browser did not take
  const places = new Map(); // of a region in its slide's list, so that one that comes back has its old one
  let last = 0;

  function placeOf(id) {
    if (!places.has(id)) places.set(id, (last = Math.max(last + 1, Date.now())));
    return places.get(id);
  }

  function stored(slide) {
    if (!isLasting) return [];
    const prefix = prefixOf(slide);
    const found = [];
    try {
      for (const key of Object.keys(localStorage).filter((each) => each.startsWith(prefix))) {
        const { place, region } = read(key);
        if (!Number.isFinite(place) || !isRegion(region, slide.id)) continue;
        places.set(region.id, place);
        found.push(region);
      }
    } catch {
      return []; // the browser keeps nothing
    }
    return found.sort((a, b) => places.get(a.id) - places.get(b.id));
  }

  return {
    kept(slide) {
      if (!memory.has(slide.id)) memory.set(slide.id, stored(slide));
      return memory.get(slide.id);
    },
    keep(slide, regions) {
      const before = new Map((unwritten.has(slide.id) ? [] : (memory.get(slide.id) ?? [])).map((region) => [region.id, region]));
      const gone = new Set((memory.get(slide.id) ?? []).map(({ id }) => id));
      memory.set(slide.id, regions);
      if (!isLasting) return regions.length === 0;
      try {
        for (const region of regions) {
          gone.delete(region.id);
          if (before.get(region.id) === region) continue;
          localStorage.setItem(prefixOf(slide) + region.id, JSON.stringify({ place: placeOf(region.id), region }));
        }
        for (const id of gone) localStorage.removeItem(prefixOf(slide) + id);
        unwritten.delete(slide.id);
        return true;
      } catch {
        unwritten.add(slide.id);
        return false; // more than the browser takes, or it takes nothing
      }
    },
    on(listener) {
      const changed = new Set();
      let soon = null;
      const tell = () => {
        soon = null;
        const slides = [...changed].filter((slide) => !unwritten.has(slide)); // what only this tab has stays
        changed.clear();
        for (const slide of slides) {
          memory.delete(slide);
          listener(slide);
        }
      };
      const heard = ({ key }) => {
        if (!key?.startsWith(PREFIX)) return;
        changed.add(key.slice(PREFIX.length).split(".")[0]);
        soon ??= setTimeout(tell); // an import is a thousand keys
      };
      if (isLasting) addEventListener("storage", heard);
      return () => {
        clearTimeout(soon);
        removeEventListener("storage", heard);
      };
    },
  };
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {}; // not ours
  }
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
