// The panes as they are, as a picture that says what it is: twice the screen's pixels, scale bar, colours, ledger, caption and
// provenance below, and all of that as text in the file. It is made here and goes to a file; nothing leaves the machine.

import { download, fileName } from "./copy.js";
import { drawBar } from "./legend.js";
import { limitOf } from "./limits.js";
import { logits, percent, plain } from "./numbers.js";
import { withTexts } from "./png_text.js";
import { roundLength, shownLength } from "./scale_bar.js";
import { describe, slideOf } from "./names.js";
import { undividedText } from "./ledger_panel.js";

const RATIO = 2;
const MARGIN = 20;
const GAP = 10;
const LINE = 17;
const FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif";
const INK = "#1c1c1c";
const FAINT = "#595959";

/** Where panes lie among each other, in CSS pixels from the corner of all. */
function layoutOf(panes) {
  const boxes = panes.map((pane) => pane.svg.getBoundingClientRect());
  const [left, top] = [Math.min(...boxes.map((box) => box.left)), Math.min(...boxes.map((box) => box.top))];
  return panes.map((pane, i) => ({
    pane, x: boxes[i].left - left, y: boxes[i].top - top, width: boxes[i].width, height: boxes[i].height,
  }));
}

/** The ledger of a score in one line. */
export function ledgerLine(ledger) {
  const parts = [["bias", ledger.bias], ...Object.entries(ledger.constants ?? {}), ["map", ledger.map_sum]];
  if (ledger.cut_off !== 0) parts.push(["cut off", ledger.cut_off]);
  const sum = parts.map(([name, value]) => `${name} ${logits(value)}`).join(", ");
  return `score ${logits(ledger.score)} logits = ${sum}; gap ${plain(ledger.gap, 2)}, ${ledger.is_closed ? "closed" : "NOT CLOSED"}`;
}

/** Text broken into lines of at most `width`. */
function linesOf(ctx, text, width) {
  const lines = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    const longer = line ? `${line} ${word}` : word;
    if (line && ctx.measureText(longer).width > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  if (line) lines.push(line);
  return lines;
}

/** Parts of provenance that a reader of the picture needs, in one line. */
function provenanceLine(info) {
  const told = info.provenance ?? {};
  return Object.entries(told).filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${name} ${value}`).join(" · ");
}

/**
 * @param {object} app
 * @param {object} parts `infos`, `regions`, `sums`
 */
export function createFigure(app, { infos, regions, sums }) {
  const { store } = app;

  function lookOf(pane, info) {
    const { colour } = store.get();
    const state = pane.state();
    const map = info?.maps?.find((candidate) => candidate.name === state.map) ?? info?.maps?.[0];
    if (!map || state.mode === "slide") return null;
    return {
      map,
      look: {
        limit: limitOf(app, map.name, map), threshold: colour.threshold, sign: colour.sign, palette: colour.palette,
        signed: map.signed, overlay: state.mode === "overlay", smooth: colour.smooth,
      },
    };
  }

  async function gather() {
    const panes = app.panes.list().filter((pane) => pane.slide);
    const ids = [...new Set(panes.map((pane) => pane.state().evidence).filter(Boolean))];
    const found = new Map(await Promise.all(ids.map(async (id) => [id, await infos.wait(id)])));
    return { panes, found };
  }

  const slideName = (pane) => slideOf(app.library, pane.state().slide)?.name ?? pane.slide.name ?? "slide";
  const title = (panes) => [...new Set(panes.map(slideName))].join(", ");

  function regionLines(found) {
    const lines = [];
    for (const region of regions.list())
      for (const id of found.keys()) {
        const answer = sums.get(id, region);
        if (answer?.sum === undefined) continue;
        const whose = found.size > 1 ? ` (${describe(app.library, id)?.title ?? id})` : "";
        lines.push(
          `${region.name}${whose}: ${logits(answer.sum)} logits, ${percent(answer.share)} of the map, ${plain(answer.area_mm2, 4)} mm², ` +
            `${plain(answer.density)} logits/mm².`,
        );
      }
    return lines;
  }

  function captionOf(panes, found) {
    const shown = panes.map((pane) => {
      const state = pane.state();
      const what = state.evidence ? describe(app.library, state.evidence)?.title ?? state.evidence : "the slide";
      return state.mode === "slide" ? "the slide" : `${what} (${state.mode === "heat" ? "heat" : "heat over the slide"})`;
    });
    const { colour } = store.get();
    const { version } = app.library;
    const how = ["Colours are logits per mm², symmetric about zero, on one scale in all panes"];
    if (colour.threshold > 0) how.push(`values below ${plain(colour.threshold)} are transparent`);
    if (colour.sign !== "both") how.push(`only evidence ${colour.sign} the target is shown`);
    how.push(colour.smooth ? "interpolated between map pixels" : "not interpolated");
    return `Slide ${title(panes)}. ${shown.map((text, i) => (shown.length > 1 ? `${i + 1}: ${text}` : text)).join("; ")}. ` +
      `${how.join("; ")}. Made with bcos-pathology${version ? ` ${String(version).replace(/^bcos-pathology /, "")}` : ""}.`;
  }

  function recordOf(panes, found, caption) {
    const { view, colour, layout } = store.get();
    return {
      caption, made: new Date().toISOString(), version: app.library.version ?? null,
      address: app.options.link ? location.href : null,
      view, layout, colour,
      panes: panes.map((pane) => ({ ...pane.state(), slide_name: slideName(pane) })),
      explanations: [...found].map(([id, info]) => ({
        id, run: info.run, target: info.target, slide: info.slide, ledger: info.ledger, settings: info.settings, provenance: info.provenance,
      })),
      regions: regions.list().map(({ id, name, kind, polygons }) => ({
        id, name, kind, polygons,
        sums: Object.fromEntries([...found.keys()].map((evidence) => [evidence, sums.get(evidence, { id, name, polygons })])
          .filter(([, answer]) => answer?.sum !== undefined).map(([evidence, { sum, share, area_mm2 }]) => [evidence, { sum, share, area_mm2 }])),
      })),
    };
  }

  async function drawPane(ctx, place, info) {
    const { pane, x, y, width, height } = place;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * RATIO);
    canvas.height = Math.round(height * RATIO);
    await pane.capture(canvas.getContext("2d"), canvas.width, canvas.height);
    ctx.save();
    const { layout, curtain } = store.get();
    if (layout === "curtain" && pane.index > 0) {
      ctx.beginPath();
      ctx.rect(x + width * curtain, y, width * (1 - curtain), height);
      ctx.clip();
    }
    ctx.drawImage(canvas, x, y, width, height);
    drawShapes(ctx, place);
    ctx.restore();
    ctx.strokeStyle = "#b0b0b0";
    ctx.lineWidth = 1;
    ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    drawScale(ctx, place);
    return info;
  }

  function drawShapes(ctx, { pane, x, y, width, height }) {
    const mpp = pane.slide.mpp;
    const { selected } = store.get();
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, width, height);
    ctx.clip();
    for (const region of store.get().regions.filter((candidate) => candidate.slide === pane.slide.id)) {
      const path = new Path2D();
      let highest = null;
      for (const ring of region.polygons.flat()) {
        ring.forEach(([px, py], i) => {
          const at = pane.toScreen(px * mpp[0], py * mpp[1]);
          path[i ? "lineTo" : "moveTo"](x + at.x, y + at.y);
          if (!highest || at.y < highest.y) highest = at;
        });
        path.closePath();
      }
      ctx.lineJoin = "round";
      ctx.strokeStyle = "rgb(255 255 255 / 85%)";
      ctx.lineWidth = 5;
      ctx.stroke(path);
      ctx.strokeStyle = region.colour ?? (region.id === selected ? "#c2185b" : "#1a1a1a");
      ctx.lineWidth = region.id === selected ? 3 : 2;
      ctx.stroke(path);
      ctx.font = `600 13px ${FONT}`;
      ctx.textAlign = "center";
      ctx.strokeStyle = "#ffffff";
      ctx.lineWidth = 4;
      ctx.strokeText(region.name, x + highest.x, y + highest.y - 6);
      ctx.fillStyle = "#1a1a1a";
      ctx.fillText(region.name, x + highest.x, y + highest.y - 6);
    }
    ctx.restore();
  }

  function drawScale(ctx, { pane, x, y, width, height }) {
    const a = pane.toScreen(0, 0);
    const b = pane.toScreen(1000, 0);
    const perPixel = 1000 / Math.hypot(b.x - a.x, b.y - a.y);
    const length = roundLength(Math.min(140, width / 3) * perPixel);
    const px = length / perPixel;
    const [left, bottom] = [x + 14, y + height - 14];
    const text = shownLength(length);
    ctx.font = `600 12px ${FONT}`;
    ctx.textAlign = "left";
    ctx.fillStyle = "rgb(255 255 255 / 80%)";
    ctx.fillRect(left - 6, bottom - 22, Math.max(px, ctx.measureText(text).width) + 12, 28);
    ctx.fillStyle = INK;
    ctx.fillRect(left, bottom - 3, px, 3);
    ctx.fillText(text, left, bottom - 8);
  }

  function drawLegend(ctx, { map, look }, x, y) {
    const width = 168;
    // The bar is made on a canvas of its own, since it clears what is under it.
    const canvas = document.createElement("canvas");
    canvas.width = width * RATIO;
    canvas.height = 12 * RATIO;
    const own = canvas.getContext("2d");
    own.scale(RATIO, RATIO);
    drawBar(own, look, width, 12);
    ctx.drawImage(canvas, x, y, width, 12);
    ctx.font = `11px ${FONT}`;
    ctx.fillStyle = INK;
    const limit = plain(look.limit);
    ctx.textAlign = "left";
    ctx.fillText(look.signed ? `−${limit}` : "0", x, y + 25);
    ctx.textAlign = "center";
    if (look.signed) ctx.fillText("0", x + width / 2, y + 25);
    ctx.textAlign = "right";
    ctx.fillText(look.signed ? `+${limit}` : limit, x + width, y + 25);
    ctx.textAlign = "left";
    ctx.fillText(`${map.label}, ${map.unit}; darker: beyond the scale`, x + width + 14, y + 10);
  }

  /** The figure as a Blob, with its name and what is written in it. */
  async function make() {
    const { panes, found } = await gather();
    if (!panes.length) throw new Error("No pane shows a slide.");
    const places = layoutOf(panes);
    const inner = Math.max(...places.map(({ x, width }) => x + width));
    const tall = Math.max(...places.map(({ y, height }) => y + height));
    const caption = captionOf(panes, found);
    const record = recordOf(panes, found, caption);

    const probe = document.createElement("canvas").getContext("2d");
    probe.font = `12px ${FONT}`;
    const notes = [];
    for (const [id, info] of found) {
      const name = describe(app.library, id)?.title ?? id;
      notes.push(`${name}: ${ledgerLine(info.ledger)}.`);
      const undivided = undividedText(info.ledger);
      if (undivided) notes.push(`${name}: ${undivided}`);
    }
    notes.push(...regionLines(found), caption);
    const small = [...found.values()].map(provenanceLine).filter(Boolean);
    if (record.address && record.address.length < 400) small.push(record.address);
    const bodyLines = notes.flatMap((text) => linesOf(probe, text, inner));
    probe.font = `10px ${FONT}`;
    const smallLines = [...new Set(small)].flatMap((text) => linesOf(probe, text, inner));
    const legends = [];
    for (const pane of panes) {
      const legend = lookOf(pane, found.get(pane.state().evidence));
      const key = legend && JSON.stringify([legend.map.name, legend.map.label, legend.look]);
      if (legend && !legends.some((other) => other.key === key)) legends.push({ key, ...legend });
    }

    const head = 26;
    const below = legends.length * 34 + bodyLines.length * LINE + smallLines.length * 14 + 3 * GAP;
    const width = inner + 2 * MARGIN;
    const height = MARGIN + head + tall + GAP + below + MARGIN;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * RATIO);
    canvas.height = Math.round(height * RATIO);
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = "#ffffff";
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.scale(RATIO, RATIO);
    ctx.font = `600 16px ${FONT}`;
    ctx.fillStyle = INK;
    ctx.fillText(linesOf(ctx, title(panes), inner)[0] ?? "", MARGIN, MARGIN + 14);
    ctx.save();
    ctx.translate(MARGIN, MARGIN + head);
    for (const place of places) await drawPane(ctx, place);
    ctx.restore();

    let y = MARGIN + head + tall + GAP;
    for (const legend of legends) {
      drawLegend(ctx, legend, MARGIN, y);
      y += 34;
    }
    y += GAP;
    ctx.textAlign = "left";
    const write = (lines, font, colour, step) => {
      ctx.font = font;
      ctx.fillStyle = colour;
      for (const line of lines) ctx.fillText(line, MARGIN, (y += step));
    };
    write(bodyLines, `12px ${FONT}`, INK, LINE);
    y += GAP / 2;
    write(smallLines, `10px ${FONT}`, FAINT, 14);

    const png = await new Promise((go, fail) =>
      canvas.toBlob((blob) => (blob ? go(blob) : fail(new Error("The picture is too large for this browser: make the window smaller."))), "image/png"));
    const texts = {
      Title: title(panes), Description: caption, Software: `bcos-pathology ${app.library.version ?? ""}`.trim(),
      bcos_pathology: JSON.stringify(record),
    };
    const blob = withTexts(await png.arrayBuffer(), texts);
    const targets = [...found.values()].map((info) => info.target);
    return { blob, name: fileName(title(panes), ...new Set(targets)) + ".png", record };
  }

  const off = app.commands.add({
    id: "figure", key: "Shift+S", label: "Save the panes as a figure (PNG)", group: "Page",
    enabled: () => store.get().page === "slide",
    run: async () => {
      app.announce("Making the figure.");
      try {
        const { blob, name } = await make();
        download(app.root, blob, name);
        app.notify(`The figure is saved as ${name}.`, { kind: "note", key: "figure" });
      } catch (error) {
        app.notify(`The figure could not be made: ${error.message}`, { key: "figure" });
      }
    },
  });
  return { make, destroy: off };
}
