// What regions hold of an explanation: asked of the server once per geometry, kept while the geometry lives.

const AT_ONCE = 50;

/**
 * Sums of regions.
 * `get(evidence, region)` is the answer, `"pending"`, or an Error; listeners of `on` hear when any of them changes.
 * A region is `{id, name, polygons}` in level-0 pixels; its polygons are never changed, only replaced.
 * @param {object} app
 */
export function createSums(app) {
  let known = new Map(); // evidence -> WeakMap(polygons -> answer)
  const listeners = new Set();
  const waiting = new Map(); // evidence -> Map(polygons -> region)
  const controllers = new Set();
  let timer = null;

  const answersOf = (evidence) => {
    if (!known.has(evidence)) known.set(evidence, new WeakMap());
    return known.get(evidence);
  };
  const tell = () => listeners.forEach((listener) => listener());

  async function ask(evidence, regions) {
    const answers = answersOf(evidence);
    const controller = new AbortController();
    controllers.add(controller);
    const body = {
      regions: regions.map((region, i) => ({ id: String(i), name: region.name, polygons: region.polygons })),
    };
    try {
      const told = await app.transport.json(`api/evidence/${evidence}/regions`, {
        method: "POST", body, signal: controller.signal,
      });
      for (const answer of told.regions) answers.set(regions[Number(answer.id)].polygons, answer);
    } catch (error) {
      // One region that cannot be summed must not take the others' numbers away.
      if (regions.length > 1 && error.status >= 400 && error.status < 500)
        await Promise.all(regions.map((region) => ask(evidence, [region])));
      else for (const region of regions) answers.set(region.polygons, error);
    } finally {
      controllers.delete(controller);
    }
    tell();
  }

  function send() {
    const batches = [...waiting];
    waiting.clear();
    for (const [evidence, byGeometry] of batches) {
      const regions = [...byGeometry.values()];
      for (let i = 0; i < regions.length; i += AT_ONCE) void ask(evidence, regions.slice(i, i + AT_ONCE));
    }
  }

  function get(evidence, region) {
    const answers = answersOf(evidence);
    if (!answers.has(region.polygons)) {
      answers.set(region.polygons, "pending");
      if (!waiting.has(evidence)) waiting.set(evidence, new Map());
      waiting.get(evidence).set(region.polygons, region);
      clearTimeout(timer);
      timer = setTimeout(send, 0);
    }
    return answers.get(region.polygons);
  }

  return {
    get,
    /** The answer, or an Error, when it is there. */
    wait: (evidence, region) =>
      new Promise((go) => {
        const look = () => {
          const answer = get(evidence, region);
          if (answer === "pending") return;
          listeners.delete(look);
          go(answer);
        };
        listeners.add(look);
        look();
      }),
    /** The same region in other words: `polygons` stand for what was asked with `before`. */
    adopt(before, polygons) {
      for (const answers of known.values()) {
        const answer = answers.get(before);
        if (answer?.polygons) answers.set(polygons, answer);
      }
    },
    /** Ask again what could not be answered. */
    retry() {
      known = new Map();
      tell();
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    destroy() {
      clearTimeout(timer);
      for (const controller of controllers) controller.abort();
      listeners.clear();
    },
  };
}
