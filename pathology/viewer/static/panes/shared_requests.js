// Panes of one slide want the same tiles at the same time: each is asked for once, and kept a while.

/**
 * The same request, shared by all who make it while it is under way or its answer is kept. It is given up when all have given it up.
 * @param {function(string, {signal: AbortSignal}): Promise} ask
 * @param {number} kept how many answers are kept
 * @returns {function(string, AbortSignal=): Promise}
 */
export function shareRequests(ask, kept) {
  const entries = new Map(); // path -> {answer, controller, users, isDone}, in order of last use

  function begin(path) {
    const controller = new AbortController();
    const entry = { controller, users: 0, isDone: false, answer: ask(path, { signal: controller.signal }) };
    entry.answer.then(
      () => {
        entry.isDone = true;
        for (const [old, { isDone }] of entries) {
          if (entries.size <= kept) break;
          if (isDone) entries.delete(old);
        }
      },
      () => entries.get(path) === entry && entries.delete(path),
    );
    return entry;
  }

  return (path, signal) => {
    const entry = entries.get(path) ?? begin(path);
    entries.delete(path);
    entries.set(path, entry);
    entry.users += 1;
    return new Promise((resolve, reject) => {
      entry.answer.then(resolve, reject);
      signal?.addEventListener(
        "abort",
        () => {
          entry.users -= 1;
          if (entry.users === 0 && !entry.isDone) {
            entries.delete(path);
            entry.controller.abort();
          }
          reject(new DOMException("given up", "AbortError"));
        },
        { once: true },
      );
    });
  };
}
