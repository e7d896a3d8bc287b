// Where data come from: fetch here, the comm in a notebook. Both fail with an Error that carries the server's line and `.status`
// (0: no answer at all).

/** An Error with the status of the answer. @param {string} line @param {number} status @returns {Error} */
export function failure(line, status) {
  return Object.assign(new Error(line), { status });
}

/**
 * Requests to the server that the page came from.
 * @param {string} [base] address that paths are relative to
 * @returns {{json: function, bytes: function, blob: function}}
 */
export function fetchTransport(base = document.baseURI) {
  async function ask(path, { method = "GET", body, signal } = {}) {
    const isText = typeof body === "string" || body instanceof Blob;
    let answer;
    try {
      answer = await fetch(new URL(path, base), {
        method,
        signal,
        body: body === undefined || isText ? body : JSON.stringify(body),
        headers: body === undefined || isText ? {} : { "Content-Type": "application/json" },
        credentials: "same-origin",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw failure("the server does not answer; is pathology view still running?", 0);
    }
    if (answer.ok) return answer;
    throw failure(await refusal(answer), answer.status);
  }
  return {
    json: async (path, options) => (await ask(path, options)).json(),
    bytes: async (path, options) => (await ask(path, options)).arrayBuffer(),
    blob: async (path, options) => (await ask(path, options)).blob(),
  };
}

async function refusal(answer) {
  try {
    const { error } = await answer.clone().json();
    if (typeof error === "string") return error;
  } catch {
    // not JSON: the status has to do
  }
  return `the server answered ${answer.status} ${answer.statusText}`.trim();
}

/**
 * The same transport, which also tells when the server is lost and when it is back.
 * @param {object} transport
 * @param {function(boolean)} tell called with true when it answers again, false when it does not
 */
export function watched(transport, tell) {
  let answers = true;
  function note(now) {
    if (now !== answers) tell((answers = now));
  }
  const watch = (ask) => async (path, options) => {
    try {
      const answer = await ask(path, options);
      note(true);
      return answer;
    } catch (error) {
      if (error.name !== "AbortError") note(error.status !== 0);
      throw error;
    }
  };
  return { ...transport, json: watch(transport.json), bytes: watch(transport.bytes), blob: watch(transport.blob) };
}
