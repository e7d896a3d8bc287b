// What the server tells of an explanation, asked once: ledger, settings, provenance, maps.

/** `get(id)` is the answer, null while it is under way, or an Error; `on(listener)` hears of answers. @param {object} app */
export function createInfos(app) {
  const known = new Map();
  const listeners = new Set();
  const controller = new AbortController();

  async function ask(id) {
    known.set(id, null);
    try {
      known.set(id, await app.transport.json(`api/evidence/${id}`, { signal: controller.signal }));
    } catch (error) {
      if (controller.signal.aborted) return;
      known.set(id, error);
    }
    for (const listener of listeners) listener();
  }

  const get = (id) => {
    if (!known.has(id)) void ask(id);
    return known.get(id);
  };
  return {
    get,
    /** The answer, waited for. */
    async wait(id) {
      for (;;) {
        const info = get(id);
        if (info instanceof Error) throw info;
        if (info) return info;
        await new Promise((go) => {
          const once = () => (listeners.delete(once), go());
          listeners.add(once);
        });
      }
    },
    /** Forget refusals: blind mode may have been lifted. */
    retry() {
      for (const [id, info] of known) if (info instanceof Error) known.delete(id);
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    destroy() {
      controller.abort();
      listeners.clear();
    },
  };
}
