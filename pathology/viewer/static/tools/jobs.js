// Questions that take a while: asked, followed until they are answered, given up when nobody wants the answer.

const POLL_MS = 300;

/**
 * `ask(path, body)` starts one and gives up the one before; `tell({state, job})` hears how far it is. `state` is as the server has it:
 * "queued", "running", "done", "failed" or "cancelled".
 * @param {object} app
 * @param {function(object)} tell
 */
export function createJob(app, tell) {
  let controller = null;
  let current = null;

  async function ask(path, body) {
    cancel();
    const mine = new AbortController();
    controller = mine;
    tell({ state: "queued", done: 0, total: 0, what: "asking" });
    try {
      // Waited for even when it is given up meanwhile: whoever does not know a question's id cannot take it back.
      const { job } = await app.transport.json(path, { method: "POST", body });
      if (mine.signal.aborted) return drop(job);
      current = job;
      for (;;) {
        const told = await app.transport.json(`api/jobs/${job}`, { signal: mine.signal });
        if (mine.signal.aborted) return;
        const isOver = !["queued", "running"].includes(told.state);
        if (isOver) current = null;
        tell({ ...told, id: job });
        if (isOver) return;
        await new Promise((go) => setTimeout(go, POLL_MS));
        if (mine.signal.aborted) return;
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      current = null;
      tell({ state: "failed", error: error.message });
    }
  }

  function drop(job) {
    app.transport.json(`api/jobs/${job}`, { method: "DELETE" }).catch(() => {}); // it may be over by now
  }

  function cancel() {
    controller?.abort();
    controller = null;
    if (current !== null) drop(current);
    current = null;
  }

  return {
    ask,
    cancel() {
      const was = controller !== null;
      cancel();
      if (was) tell({ state: "cancelled" });
    },
    destroy: cancel,
  };
}
