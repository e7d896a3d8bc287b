// From numbers to colours: one scale for all slides, classes and runs, symmetric about zero.
//
// Colours are made in CIE LCh, so that +v and -v are equally light, and differ in a way that people with any colour vision see.
// Values beyond the limit have a darker colour of their own: what is clipped looks clipped.

/** int16 that means: nothing was placed here. */
export const NODATA = -32768;

/** Hues (degrees in LCh) of evidence against and for. */
export const PALETTES = Object.freeze({
  "blue-brown": Object.freeze({ against: 275, for: 62 }),
  "purple-green": Object.freeze({ against: 318, for: 145 }),
});

const STEPS = 512;
const WHITE = [0.95047, 1, 1.08883]; // D65
const NEUTRAL = 96; // L* of zero
const END = 42; // L* of the limit
const BEYOND = 26; // L* of what is clipped

function linearRgb(lightness, chroma, hue) {
  const [a, b] = [chroma * Math.cos((hue * Math.PI) / 180), chroma * Math.sin((hue * Math.PI) / 180)];
  const y = (lightness + 16) / 116;
  const [x, yy, z] = [y + a / 500, y, y - b / 200].map((f, i) => WHITE[i] * (f > 6 / 29 ? f ** 3 : (f - 4 / 29) * (108 / 841)));
  return [
    3.2404542 * x - 1.5371385 * yy - 0.4985314 * z,
    -0.969266 * x + 1.8760108 * yy + 0.041556 * z,
    0.0556434 * x - 0.2040259 * yy + 1.0572252 * z,
  ];
}

/** The sRGB colour of that lightness and hue, of the wanted chroma or the most that a screen shows. */
function srgb(lightness, chroma, hue) {
  let linear = linearRgb(lightness, chroma, hue);
  for (let less = chroma; less > 0 && linear.some((c) => c < 0 || c > 1); less -= 0.5) linear = linearRgb(lightness, less, hue);
  return linear.map((c) => {
    const clipped = Math.min(Math.max(c, 0), 1);
    return Math.round(255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055));
  });
}

/** [r, g, b, a] at `t` of the way from zero to the limit; t > 1 is beyond it. */
function diverging(t, hue, overlay) {
  if (t > 1) return [...srgb(BEYOND, 45, hue), 255];
  // Over a slide pale colours say nothing: they begin stronger, and what is near zero is transparent instead.
  const depth = overlay ? 0.4 + 0.6 * t : t;
  const colour = srgb(NEUTRAL + (END - NEUTRAL) * depth, 58 * depth ** 0.8, hue);
  return [...colour, overlay ? opacityAt(t) : 255];
}

/** Over a slide: zero is transparent, and what is weak is still seen. */
const opacityAt = (t) => Math.round(255 * Math.min(1, 1.5 * t) ** 0.6);

/** Unsigned maps: light yellow to dark blue, lightness falling evenly. */
function sequential(t, overlay) {
  if (t > 1) return [...srgb(14, 40, 300), 255];
  const colour = srgb(NEUTRAL - 70 * t, 18 + 70 * t * (1 - t) + 22 * t, 100 + 195 * t);
  return [...colour, overlay ? opacityAt(t) : 255];
}

const ramps = new Map();

/** Colours of 0..1 in STEPS + 1 steps and one beyond, packed as canvases hold them (little-endian RGBA). */
function ramp(name, make) {
  let made = ramps.get(name);
  if (made === undefined) {
    made = new Uint32Array(STEPS + 2);
    for (let i = 0; i < made.length; i++) {
      const [r, g, b, a] = make(i / STEPS);
      made[i] = ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
    }
    ramps.set(name, made);
  }
  return made;
}

/**
 * The colour of a value as a packed RGBA number.
 * @param {object} look `limit`, `threshold`, `sign` ("both", "for", "against"), `palette`, `signed`, `overlay`
 * @returns {function(number): number}
 */
export function colouring({ limit, threshold = 0, sign = "both", palette, signed = true, overlay = false }) {
  const hues = PALETTES[palette] ?? PALETTES["blue-brown"];
  const how = overlay ? "overlay" : "heat";
  const [up, down] = signed
    ? ["for", "against"].map((side) => ramp(`${palette} ${side} ${how}`, (t) => diverging(t, hues[side], overlay)))
    : [0, 1].map(() => ramp(`sequential ${how}`, (t) => sequential(t, overlay)));
  const [least, most] = signed ? [sign === "for" ? 0 : -Infinity, sign === "against" ? 0 : Infinity] : [-Infinity, Infinity];
  const cut = signed ? threshold : 0; // thresholds are told in the unit of signed maps
  return (value) => {
    const size = Math.abs(value);
    const shown = value >= least && value <= most && size >= cut;
    const side = value < 0 ? down : up;
    if (!shown) return up[0];
    return side[size > limit ? STEPS + 1 : Math.round((size / limit) * STEPS)];
  };
}

/**
 * Colours of all int16 values of a map: `table[n + 32768]`; nodata is transparent.
 * @param {object} look see colouring; and `step`, the value of one count
 * @returns {Uint32Array} 65536 packed RGBA colours
 */
export function lookup({ step, ...look }) {
  const colour = colouring(look);
  const table = new Uint32Array(65536);
  for (let i = 1; i < 65536; i++) table[i] = colour((i - 32768) * step);
  return table;
}
