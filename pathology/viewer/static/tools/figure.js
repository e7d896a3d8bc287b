// The panes as they are, as a picture that says what it is: twice the screen's pixels, scale bar, colours, ledger, caption and
// provenance below, and all of that as text in the file. It is made here and goes to a file; nothing leaves the machine.

import { download, fileName } from "../base/copy.js";
import { undividedText } from "./ledger_panel.js";
import { drawBar } from "../panes/legend.js";
import { limitOf } from "../base/limits.js";
import { written } from "../frame/link_text.js";
import { decimalsFor, logits, percent, plain } from "../base/numbers.js";
import { boundsOf, frameOf, labelPlace } from "./overlay.js";
import { withTexts } from "./png_text.js";
import { roundLength, shownLength } from "../panes/scale_bar.js";
import { slideOf } from "../base/names.js";
import { nameOf } from "../base/shown.js";

const RATIO = 2;
const MARGIN = 20;
const GAP = 10;
const LINE = 17;
const MOST_TOLD = 12; // regions whose numbers stand under the picture
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
function ledgerLine(ledger) {
  const parts = [["bias", ledger.bias], ...Object.entries(ledger.constants ?? {}), ["map", ledger.map_sum]];
  if (ledger.cut_off !== 0) parts.push(["cut off", ledger.cut_off]);
  const sum = parts.map(([name, value]) => `${name} ${logits(value)}`).join(", ");
  return `score ${logits(ledger.score)} logits = ${sum}; gap ${plain(ledger.gap, 2)} logits, ${ledger.is_closed ? "closed" : "NOT CLOSED"}`;
}

/** Words no longer than `width`: addresses are broken where the line ends. */
function fittingWords(ctx, text, width) {
  const words = [];
  for (let word of text.split(/\s+/).filter(Boolean)) {
    while (ctx.measureText(word).width > width) {
      let many = word.length;
      while (many > 1 && ctx.measureText(word.slice(0, many)).width > width) many -= 1;
      words.push(word.slice(0, many));
      word = word.slice(many);
    }
    words.push(word);
  }
  return words;
}

/** Text broken into lines of at most `width`. */
function linesOf(ctx, text, width) {
  const lines = [];
  let line = "";
  for (const word of fittingWords(ctx, text, width)) {
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
 * @param {object} parts `infos`, `overlay`, `regions`, `sums`
 */
export function createFigure(app, { infos, overlay, regions, sums }) {
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

  /** All that the figure tells, waited for: a number that has not come yet is not left out. */
  async function gather() {
    const panes = app.panes.list().filter((pane) => pane.slide && pane.size.width > 0);
    const ids = [...new Set(panes.map((pane) => pane.state().evidence).filter(Boolean))];
    const found = new Map(await Promise.all(ids.map(async (id) => [id, await infos.wait(id)])));
    const told = await Promise.all(
      regions.list().map(async (region) => ({
        region,
        answers: await Promise.all(ids.map(async (id) => ({ id, answer: await sums.wait(id, region) }))),
      })),
    );
    for (const { region, answers } of told)
      for (const { answer } of answers) if (answer instanceof Error) throw new Error(`${region.name}: ${answer.message}`);
    return { panes, found, told };
  }

  const slideName = (pane) => slideOf(app.library, pane.state().slide)?.name ?? pane.slide.name ?? "slide";
  const title = (panes) => [...new Set(panes.map(slideName))].join(", ");

  // The selected region first; many would be longer than the picture.
  function regionLines(all, found) {
    const chosen = store.get().selected;
    const told = [...all].sort((a, b) => Number(b.region.id === chosen) - Number(a.region.id === chosen)).slice(0, MOST_TOLD);
    const rest = all.length - told.length;
    const lines = told.flatMap(({ region, answers }) =>
      answers.map(({ id, answer }) => {
        const whose = found.size > 1 ? ` (${nameOf(app, id)})` : "";
        return `${region.name}${whose}: ${logits(answer.sum)} logits, ${percent(answer.share)} of the map, ${plain(answer.area_mm2, 4)} mm², ` +
          `${logits(answer.density, decimalsFor([answer.density]))} logits/mm².`;
      }));
    return rest > 0 ? [...lines, `The numbers of ${rest} more regions are in the file's text.`] : lines;
  }

  function captionOf(panes, found, looks) {
    const shown = panes.map((pane) => {
      const { mode, evidence, opacity } = pane.state();
      const look = mode === "slide" || !evidence ? null : lookOf(pane, found.get(evidence));
      if (!look) return "the slide";
      return `${nameOf(app, evidence)} (${look.map.label}${mode === "heat" ? "" : `, ${Math.round(100 * opacity)} % over the slide`})`;
    });
    const { colour, layout } = store.get();
    const isCurtain = layout === "curtain" && panes.length <= 2;
    if (isCurtain && panes.length === 1 && shown[0] !== "the slide") shown.unshift("the slide");
    const numbered = shown.map((text, i) => (shown.length > 1 && panes.length > 1 ? `${panes[i].index + 1}: ${text}` : text)).join("; ");
    const sides = isCurtain && shown.length === 2 ? "Left and right of the line: " : "";
    const how = [];
    if (looks.length) {
      const units = [...new Set(looks.map(({ map }) => map.unit))].join(", ");
      const isOne = new Set(looks.map(({ map, look }) => `${map.name} ${look.limit}`)).size === 1;
      const scale = panes.length === 1 ? "" : isOne ? ", on one scale in all panes" : ", each kind of map on a scale of its own";
      how.push(`Colours are ${units}${looks.every(({ look }) => look.signed) ? ", symmetric about zero" : ""}${scale}`);
      if (colour.threshold > 0) how.push(`what is below ${plain(colour.threshold)} ${units} is clear`);
      if (colour.sign !== "both") how.push(`only evidence ${colour.sign} the target is shown`);
      how.push(colour.smooth ? "interpolated between the map's pixels" : "not interpolated");
      how.push("hatched: no tile was looked at");
    }
    return [`Slide ${title(panes)}. ${sides}${numbered}.`, how.length ? `${how.join("; ")}.` : "", `Made with ${software()}.`].filter(Boolean).join(" ");
  }

  const software = () => `bcos-pathology ${String(app.library.version ?? "").replace(/^bcos-pathology\s*/, "")}`.trim();

  function recordOf(panes, found, told, caption) {
    const state = store.get();
    return {
      caption, made: new Date().toISOString(), version: software(),
      address: app.options.link ? `${location.origin}${location.pathname}#${written(state)}` : null,
      view: state.view, layout: state.layout, colour: state.colour,
      panes: panes.map((pane) => ({ ...pane.state(), slide_name: slideName(pane) })),
      explanations: [...found].map(([id, info]) => ({
        id, name: nameOf(app, id), run: info.run, target: info.target, slide: info.slide, ledger: info.ledger, settings: info.settings,
        provenance: info.provenance,
      })),
      regions: told.map(({ region: { id, name, kind, polygons }, answers }) => ({
        id, name, kind, polygons,
        sums: Object.fromEntries(answers.map(({ id: evidence, answer: { sum, share, area_mm2 } }) => [evidence, { sum, share, area_mm2 }])),
      })),
    };
  }

  /** The colour bars that are needed: one for each look, with its panes. */
  function legendsOf(panes, found) {
    const legends = new Map();
    for (const pane of panes) {
      const legend = lookOf(pane, found.get(pane.state().evidence));
      if (!legend) continue;
      const key = JSON.stringify([legend.map.name, legend.map.label, legend.map.unit, legend.look]);
      if (!legends.has(key)) legends.set(key, { ...legend, panes: [] });
      legends.get(key).panes.push(pane);
    }
    return [...legends.values()];
  }

  /** What share of the map in view is clipped in panes, in words; asked when they are drawn, so that all of the map is there. */
  function clippedIn(panes, many) {
    return panes.map((pane) => [pane, pane.survey()]).filter(([, { pixels }]) => pixels > 0)
      .map(([pane, { pixels, clipped }]) => `${many ? `pane ${pane.index + 1}: ` : ""}${clipped > 0 ? percent(clipped / pixels) : "none"}`);
  }

  async function drawPane(ctx, place, { many, room }) {
    const { pane, x, y, width, height } = place;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(width * RATIO);
    canvas.height = Math.round(height * RATIO);
    await pane.capture(canvas.getContext("2d"), canvas.width, canvas.height);
    ctx.save();
    const { layout, curtain } = store.get();
    const isRight = layout === "curtain" && pane.index > 0;
    const isParted = isRight || (layout === "curtain" && !many && pane.state().mode !== "slide" && pane.evidence);
    if (isRight) {
      ctx.beginPath();
      ctx.rect(x + width * curtain, y, width * (1 - curtain), height);
      ctx.clip();
    }
    ctx.drawImage(canvas, x, y, width, height);
    await drawShapes(ctx, place);
    ctx.restore();
    if (isParted) {
      ctx.fillStyle = "#ffffff";
      ctx.fillRect(x + width * curtain - 2, y, 4, height);
      ctx.fillStyle = INK;
      ctx.fillRect(x + width * curtain - 1, y, 2, height);
    }
    ctx.strokeStyle = "#b0b0b0";
    ctx.lineWidth = 1;
    ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
    if (!isRight) drawScale(ctx, place, room);
    if (many) haloed(ctx, String(pane.index + 1), isRight ? x + width - 10 : x + 10, y + 20, isRight ? "right" : "left");
  }

  async function drawShapes(ctx, { pane, x, y, width, height }) {
    const mpp = pane.slide.mpp;
    const at = ([px, py]) => pane.toScreen(px * mpp[0], py * mpp[1]);
    ctx.save();
    ctx.beginPath();
    ctx.rect(x, y, width, height);
    ctx.clip();
    ctx.translate(x, y);
    for (const item of overlay.items(pane)) {
      if (item.picture) await drawPicture(ctx, item, frameOf(pane), at(item.box), mpp);
      else if (!item.open) drawOutline(ctx, item, at);
    }
    ctx.restore();
  }

  async function drawPicture(ctx, { picture, box, opacity = 1 }, frame, corner, mpp) {
    const image = new Image();
    image.src = picture;
    await image.decode();
    ctx.save();
    ctx.transform(...frame, corner.x, corner.y);
    ctx.globalAlpha = opacity;
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(image, 0, 0, (box[2] - box[0]) * mpp[0], (box[3] - box[1]) * mpp[1]);
    ctx.restore();
  }

  function drawOutline(ctx, { lines, label, colour, isSelected }, at) {
    const path = new Path2D();
    const points = [];
    for (const line of lines) {
      line.forEach((point, i) => {
        const spot = at(point);
        points.push([spot.x, spot.y]);
        path[i ? "lineTo" : "moveTo"](spot.x, spot.y);
      });
      path.closePath();
    }
    ctx.lineJoin = "round";
    ctx.strokeStyle = "rgb(255 255 255 / 85%)";
    ctx.lineWidth = 5;
    ctx.stroke(path);
    ctx.strokeStyle = colour ?? (isSelected ? "#c2185b" : INK);
    ctx.lineWidth = isSelected ? 3 : 2;
    ctx.stroke(path);
    if (label) {
      const spot = labelPlace(boundsOf(points));
      haloed(ctx, label, spot.x, spot.y, "center");
    }
  }

  function haloed(ctx, text, x, y, align) {
    ctx.font = `600 13px ${FONT}`;
    ctx.textAlign = align;
    ctx.lineJoin = "round";
    ctx.strokeStyle = "#ffffff";
    ctx.lineWidth = 4;
    ctx.strokeText(text, x, y);
    ctx.fillStyle = INK;
    ctx.fillText(text, x, y);
  }

  function drawScale(ctx, { pane, x, y, height }, room) {
    const a = pane.toScreen(0, 0);
    const b = pane.toScreen(1000, 0);
    const perPixel = 1000 / Math.hypot(b.x - a.x, b.y - a.y);
    const length = roundLength(Math.min(140, room) * perPixel);
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

  function drawLegend(ctx, { map, look }, clipped, x, y) {
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
    ctx.fillText(`${map.label}, ${map.unit}${look.overlay ? ", over the slide" : ""}`, x + width + 14, y + 10);
    ctx.fillStyle = FAINT;
    if (clipped.length) ctx.fillText(`beyond the scale (darker): ${clipped.join(", ")} of the map's pixels in view`, x + width + 14, y + 25);
  }

  /** The figure as a Blob, with its name and what is written in it. */
  async function make() {
    const { panes, found, told } = await gather();
    if (!panes.length) throw new Error("no pane shows a slide");
    const places = layoutOf(panes);
    const inner = Math.max(...places.map(({ x, width }) => x + width));
    const tall = Math.max(...places.map(({ y, height }) => y + height));
    const legends = legendsOf(panes, found);
    const caption = captionOf(panes, found, legends);
    const record = recordOf(panes, found, told, caption);

    const probe = document.createElement("canvas").getContext("2d");
    probe.font = `12px ${FONT}`;
    const notes = [];
    for (const [id, info] of found) {
      notes.push(`${nameOf(app, id)}: ${ledgerLine(info.ledger)}.`);
      const undivided = undividedText(info.ledger);
      if (undivided) notes.push(`${nameOf(app, id)}: ${undivided}`);
    }
    notes.push(...regionLines(told, found), ...new Set(panes.flatMap((pane) => overlay.items(pane)).map((item) => item.told).filter(Boolean)), caption);
    const small = [...found.values()].map(provenanceLine).filter(Boolean);
    if (record.address && record.address.length < 400) small.push(record.address);
    const bodyLines = notes.flatMap((text) => linesOf(probe, text, inner));
    probe.font = `10px ${FONT}`;
    const smallLines = [...new Set(small)].flatMap((text) => linesOf(probe, text, inner));

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
    const how = { many: places.length > 1, room: Math.min(...places.map((place) => place.width)) / 3 };
    for (const place of places) await drawPane(ctx, place, how);
    ctx.restore();

    let y = MARGIN + head + tall + GAP;
    for (const legend of legends) {
      drawLegend(ctx, legend, clippedIn(legend.panes, places.length > 1), MARGIN, y);
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
      Title: title(panes), Description: caption, Software: software(),
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
