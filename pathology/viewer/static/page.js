// The page of `pathology view`: the whole document is the viewer, and data come by fetch.

import { start } from "./main.js";
import { fetchTransport } from "./base/transport.js";

start(document.body, {
  transport: fetchTransport(),
  OpenSeadragon: globalThis.OpenSeadragon,
  options: { link: true },
});
