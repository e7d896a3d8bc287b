// Of several requests for one thing only the last counts: what is under way is aborted.

/**
 * Ask again and again, show the last answer only.
 * `run(signal)` asks and shows; it is not started before `wait` ms without another call, and its
 * errors other than aborts go to `failed`. Returns `{ask(run), stop()}`.
 */
export function createLatest(wait, failed) {
  let timer = null;
  let controller = null;
  const stop = () => {
    clearTimeout(timer);
    controller?.abort();
    controller = null;
  };
  return {
    stop,
    ask(run) {
      stop();
      const mine = new AbortController();
      controller = mine;
      timer = setTimeout(async () => {
        try {
          await run(mine.signal);
        } catch (error) {
          if (!mine.signal.aborted) failed(error);
        }
      }, wait);
    },
  };
}
