// Thumbnails of the rows that are on the screen: few requests at a time, the newest first, those scrolled away are given up.

const AT_ONCE = 4;
const KEPT = 240;

/**
 * @param {object} app
 * @returns {{show: function(HTMLImageElement, string), keep: function(Set<string>), destroy: function()}}
 */
export function createThumbnails(app) {
  const kept = new Map(); // id -> object URL, the oldest first; null where there is none to be had
  const waiting = new Map(); // id -> images
  const running = new Map(); // id -> AbortController

  function put(image, url) {
    if (url === null) image.closest(".thumbnail")?.setAttribute("data-missing", "");
    else image.src = url;
  }

  function remember(id, url) {
    kept.set(id, url);
    if (kept.size <= KEPT) return;
    const [oldest, old] = kept.entries().next().value;
    kept.delete(oldest);
    if (old !== null) URL.revokeObjectURL(old);
  }

  async function load(id) {
    const stop = new AbortController();
    running.set(id, stop);
    try {
      const blob = await app.transport.blob(`api/slides/${id}/thumbnail.jpg`, { signal: stop.signal });
      remember(id, URL.createObjectURL(blob));
    } catch (error) {
      if (error.name !== "AbortError" && error.status !== 0) remember(id, null); // the row's problem says why
    }
    running.delete(id);
    const images = waiting.get(id) ?? [];
    waiting.delete(id);
    if (kept.has(id)) for (const image of images) put(image, kept.get(id));
    next();
  }

  function next() {
    const idle = [...waiting.keys()].filter((id) => !running.has(id)).reverse();
    for (const id of idle.slice(0, AT_ONCE - running.size)) load(id);
  }

  return {
    /** Show a slide's thumbnail in an image as soon as it is there. */
    show(image, id) {
      if (kept.has(id)) {
        const url = kept.get(id);
        kept.delete(id);
        kept.set(id, url);
        put(image, url);
        return;
      }
      waiting.set(id, [...(waiting.get(id) ?? []), image]);
      next();
    },
    /** Give up what is wanted no more. */
    keep(ids) {
      for (const id of waiting.keys()) if (!ids.has(id)) waiting.delete(id);
      for (const [id, stop] of running) if (!ids.has(id)) stop.abort();
    },
    destroy() {
      waiting.clear();
      for (const stop of running.values()) stop.abort();
      for (const url of kept.values()) if (url !== null) URL.revokeObjectURL(url);
    },
  };
}
