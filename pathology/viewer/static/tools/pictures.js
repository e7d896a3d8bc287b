// Pictures by the transport: an <img> whose address is a Blob, so that they come over a notebook's comm as well.

import { element } from "../base/dom.js";

/** Address of the picture of a box of level-0 pixels. */
export function regionAddress(slide, { x, y, width, height }, px) {
  const query = new URLSearchParams({ x, y, width, height, px });
  return `api/slides/${slide}/region.jpg?${query}`;
}

/** Pictures that are let go together. @param {object} app */
export function createPictures(app) {
  let controller = new AbortController();
  let addresses = [];
  return {
    /** An <img> that fills in when the picture came; an empty frame that says why if it does not. */
    show(path, alt) {
      const image = element("img", { alt, draggable: false, class: "tool-picture" });
      const { signal } = controller;
      app.transport.blob(path, { signal }).then(
        (blob) => {
          if (signal.aborted) return;
          const address = URL.createObjectURL(blob);
          addresses.push(address);
          image.src = address;
        },
        (error) => {
          if (signal.aborted) return;
          image.classList.add("is-missing");
          image.title = error.message;
        },
      );
      return image;
    },
    clear() {
      controller.abort();
      controller = new AbortController();
      for (const address of addresses) URL.revokeObjectURL(address);
      addresses = [];
    },
  };
}
