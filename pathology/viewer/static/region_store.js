// A slide's regions between visits: kept in this browser, so that closing the page loses none. Nothing leaves the machine.

const PREFIX = "bcos-pathology.regions.";
const memory = new Map(); // where the browser keeps nothing, at least while the page is open

/** The regions kept for a slide. @param {string} slide @returns {object[]} */
export function keptRegions(slide) {
  if (memory.has(slide)) return memory.get(slide);
  try {
    const kept = JSON.parse(localStorage.getItem(PREFIX + slide) ?? "[]");
    return Array.isArray(kept) ? kept.filter((region) => isRegion(region, slide)) : [];
  } catch {
    return [];
  }
}

/** Keep them; false where it is only while the page is open. @param {string} slide @param {object[]} regions @returns {boolean} */
export function keepRegions(slide, regions) {
  memory.set(slide, regions);
  try {
    if (regions.length) localStorage.setItem(PREFIX + slide, JSON.stringify(regions));
    else localStorage.removeItem(PREFIX + slide);
    return true;
  } catch {
    return false;
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
