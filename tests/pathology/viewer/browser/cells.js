// Cells of a notebook with a widget each, as anywidget makes them; `toKernel` and `fromKernel` are the test's.
async ([esm, widgets]) => {
  const address = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const coded = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)));
  // A notebook hands out views of what may be a larger buffer.
  const plain = (text) => new DataView(Uint8Array.from(`_${atob(text)}`, (c) => c.charCodeAt(0)).buffer, 1);
  window.cells = {};
  for (const [name, traits] of Object.entries(widgets)) {
    const { default: widget } = await import(`${address}#${name}`); // a module of its own, as in a notebook
    const listeners = new Map();
    const el = document.body.appendChild(document.createElement("div"));
    const cell = {
      el,
      listeners,
      said: [],
      isDeaf: false,
      get root() {
        return el.firstElementChild?.shadowRoot.querySelector(".viewer");
      },
      hear(content, buffers) {
        for (const each of listeners.get("msg:custom") ?? []) each(content, buffers.map(plain));
      },
      // How many colours the fullest canvas has: many where a slide is drawn, one or two where none is.
      colours() {
        const canvases = [...(cell.root?.querySelectorAll(".openseadragon-canvas canvas") ?? [])];
        const counts = canvases.filter(({ width, height }) => width && height).map((canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const seen = new Set();
          for (let i = 0; i < data.length; i += 4 * 97) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
          return seen.size;
        });
        return Math.max(0, ...counts);
      },
    };
    const model = {
      get: (key) => traits[key],
      on: (event, hear) => listeners.set(event, [...(listeners.get(event) ?? []), hear]),
      off: (event, hear) => listeners.set(event, listeners.get(event).filter((each) => each !== hear)),
      send(content, _, buffers = []) {
        cell.said.push(content);
        window.toKernel(name, JSON.stringify(content), buffers.map(coded));
      },
    };
    window.cells[name] = cell;
    cell.end = widget.render({ model, el });
  }
  const poll = async () => {
    for (;;) {
      const deaf = Object.keys(window.cells).filter((name) => window.cells[name].isDeaf);
      for (const [name, content, buffer] of await window.fromKernel(deaf)) window.cells[name].hear(content, [buffer]);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  poll();
}
