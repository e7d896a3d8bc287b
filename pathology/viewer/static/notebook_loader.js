// The viewer in a notebook's cell. This file is the widget's module and stands alone: the page's own modules come over the widget's
// channel, once for all widgets of a notebook, and so do all data. No port is opened and nothing is fetched.

const AT_ONCE = 6; // requests under way; the others wait here, where they can still be dropped
const PATIENCE_MS = 3000; // a kernel that runs a cell does not answer

/** Show the viewer of a widget. @param {{model: object, el: HTMLElement}} cell @returns {function()} what ends it */
function render({ model, el }) {
  const host = document.createElement("div");
  // JupyterLab listens to keys for the whole notebook, where "d d" deletes a cell; inside of this they are the viewer's.
  host.dataset.lmSuppressShortcuts = "true";
  host.dataset.jpSuppressContextMenu = "true";
  const shade = host.attachShadow({ mode: "open" });
  const root = document.createElement("div");
  const waiting = document.createElement("div");
  waiting.setAttribute("role", "status");
  const say = (text) => {
    waiting.textContent = text;
    waiting.style.cssText = text && "position: absolute; bottom: 0; left: 0; padding: 4px 8px; font: 13px system-ui; background: #fff; color: #333";
  };
  host.style.cssText = "position: relative; display: block";
  const fit = () => (host.style.height = `${model.get("height")}px`);
  fit();
  model.on("change:height", fit);
  shade.append(root, waiting);
  el.append(host);

  const channel = createChannel(model, (late) => {
    say(late ? "The kernel does not answer yet: it runs a cell. If it was restarted, run this cell again." : "");
  });
  let over = false;
  (async () => {
    const page = await pageOf(model.get("page"), channel);
    if (over) return;
    const style = document.createElement("style");
    style.textContent = `${page.styles}\n:host > .viewer { position: absolute; inset: 0; }`;
    shade.prepend(style);
    await page.start(root, { transport: channel.transport, OpenSeadragon: page.OpenSeadragon, options: { link: false } });
    if (over) root.viewer?.destroy();
  })().catch((error) => {
    if (!over) say(`The viewer cannot start: ${error.message}`);
  });
  return () => {
    over = true;
    root.viewer?.destroy();
    channel.end();
    host.remove();
  };
}

/**
 * Requests over a widget's channel, with the transport that the page wants.
 * @param {object} model
 * @param {function(boolean)} tellLate called with true when answers stay away, with false when they come again
 */
function createChannel(model, tellLate) {
  // Every open page of a notebook hears all answers, so the names of requests are its own.
  const view = Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(16)).join("");
  const queue = [];
  const underWay = new Map();
  let count = 0;
  let timer = null;
  let isLate = false;

  function watch() {
    clearTimeout(timer);
    if (isLate) tellLate((isLate = false));
    if (underWay.size) timer = setTimeout(() => tellLate((isLate = true)), PATIENCE_MS);
  }
  function next() {
    while (queue.length && underWay.size < AT_ONCE) {
      const request = queue.shift();
      if (!underWay.size) watch();
      underWay.set(request.message.ask, request);
      try {
        model.send(request.message, undefined, request.buffers);
      } catch (error) {
        finish(request.message.ask);
        request.reject(failure(`the kernel cannot be reached: ${error.message}`, 0));
      }
    }
  }
  function finish(name) {
    const request = underWay.get(name);
    underWay.delete(name);
    watch();
    next();
    return request;
  }
  function hear(message, buffers) {
    const request = underWay.get(message?.ask);
    if (!request) return; // dropped, or another page's
    finish(message.ask);
    request.resolve({ status: message.status, kind: message.kind, packed: message.packed, body: buffers[0] });
  }
  async function ask(path, { method = "GET", body, signal } = {}) {
    const isBinary = body instanceof Blob;
    const buffers = isBinary ? [await body.arrayBuffer()] : [];
    const text = body === undefined || isBinary || typeof body === "string" ? body : JSON.stringify(body);
    signal?.throwIfAborted();
    const name = `${view}-${(count += 1)}`;
    const answer = await new Promise((resolve, reject) => {
      const message = { ask: name, method, path, body: isBinary ? undefined : text };
      const request = { message, buffers, resolve, reject };
      queue.push(request);
      signal?.addEventListener("abort", () => {
        const place = queue.indexOf(request);
        if (place >= 0) queue.splice(place, 1);
        else if (underWay.has(name)) {
          tell({ drop: name });
          finish(name);
        }
        reject(signal.reason);
      }, { once: true });
      next();
    });
    const bytes = await unpacked(answer);
    if (answer.status < 400) return { bytes, kind: answer.kind };
    throw failure(refusal(bytes, answer.status), answer.status);
  }
  function tell(message) {
    try {
      model.send(message);
    } catch {
      // the widget is closed, and all of this with it
    }
  }
  model.on("msg:custom", hear);
  tell({ came: view });
  return {
    transport: {
      json: async (path, options) => JSON.parse(new TextDecoder().decode((await ask(path, options)).bytes)),
      bytes: async (path, options) => (await ask(path, options)).bytes,
      blob: async (path, options) => {
        const { bytes, kind } = await ask(path, options);
        return new Blob([bytes], { type: kind });
      },
    },
    end() {
      clearTimeout(timer);
      model.off("msg:custom", hear);
      const gone = new DOMException("the viewer was closed", "AbortError");
      for (const request of [...queue.splice(0), ...underWay.values()]) request.reject(gone);
      for (const name of underWay.keys()) tell({ drop: name });
      underWay.clear();
      tell({ left: view });
    },
  };
}

function failure(line, status) {
  return Object.assign(new Error(line), { status });
}

function refusal(bytes, status) {
  try {
    const { error } = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof error === "string") return error;
  } catch {
    // not JSON: the status has to do
  }
  return `the viewer answered ${status}`;
}

/** The body of an answer, an ArrayBuffer of its own. */
async function unpacked({ body, packed }) {
  const view = body instanceof ArrayBuffer ? new Uint8Array(body) : new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (!packed) return view.slice().buffer;
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** The page's modules, loaded once however many widgets show it. @param {string} version @param {object} channel */
async function pageOf(version, channel) {
  // Each widget is a module of its own; the document is what they have in common.
  const pages = (globalThis[Symbol.for("bcos-pathology.viewer")] ??= new Map());
  for (;;) {
    const isMine = !pages.has(version);
    if (isMine) pages.set(version, load(channel));
    const loading = pages.get(version);
    try {
      return await loading;
    } catch (error) {
      if (pages.get(version) === loading) pages.delete(version);
      if (isMine || error.name !== "AbortError") throw error; // else the widget that asked was closed: it is up to this one
    }
  }
}

/** The name of what a module imports. */
const beside = (name, other) => new URL(other, `page:/${name}`).pathname.slice(1);

async function load(channel) {
  const { modules, styles, openseadragon } = await channel.transport.json("page");
  const addresses = new Map();
  const blob = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  // A blob has no neighbours: what a module imports by "./name" or "../name" is put in its place first.
  function address(name, above = []) {
    if (above.includes(name)) throw new Error(`modules import each other: ${[...above, name].join(", ")}`);
    if (!(name in modules)) throw new Error(`no module ${name}, which ${above.at(-1)} imports`);
    if (!addresses.has(name)) {
      const text = modules[name].replace(
        /(\b(?:from|import)\s*\(?\s*)(["'])(\.\.?\/[\w./-]+)\2/g,
        (_, words, __, other) => `${words}"${address(beside(name, other), [...above, name])}"`,
      );
      addresses.set(name, blob(text));
    }
    return addresses.get(name);
  }
  // OpenSeadragon exports to CommonJS where there is one, so the notebook's document gets no global from it.
  const library = blob(`const define = undefined, module = { exports: {} };\n${openseadragon}\nexport default module.exports;`);
  const main = address("main.js");
  try {
    const [{ start }, { default: OpenSeadragon }] = await Promise.all([import(main), import(library)]);
    return { start, OpenSeadragon, styles: styles.join("\n") };
  } finally {
    URL.revokeObjectURL(library);
  }
}

export default { render };
