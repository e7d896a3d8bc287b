// Numbers as people read them, and as programs do.

const MINUS = "\u2212";

function signed(text) {
  return text.replace(/-/g, MINUS);
}

/** Decimals that show four digits of the largest of `values`, 3 to 7 of them. */
export function decimalsFor(values) {
  const largest = Math.max(...values.filter(Number.isFinite).map(Math.abs), 0);
  if (largest === 0) return 3;
  return Math.min(7, Math.max(3, 3 - Math.floor(Math.log10(largest))));
}

const DUST = 1e-12; // in logits: what float64 leaves of sums that cancel

/** Logits with their sign; what is not zero but would read so is told by its power of ten. */
export function logits(number, decimals = 4) {
  if (number === null || number === undefined) return "";
  const value = Math.abs(number) < DUST ? 0 : number;
  if (!Number.isFinite(value)) return "not finite";
  const text = value.toFixed(decimals);
  if (value !== 0 && Number(text) === 0) return signed(`${value > 0 ? "+" : ""}${value.toExponential(1)}`);
  return signed(`${value > 0 ? "+" : ""}${text}`);
}

/** A number without a sign of its own, to `digits` significant ones. */
export function plain(value, digits = 3) {
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return signed(value.toExponential(digits - 1));
  const decimals = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return signed(
    value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }),
  );
}

/** A share as per cent; one that is not zero never reads as zero. */
export function percent(share) {
  if (share === null || share === undefined) return "";
  if (!Number.isFinite(share)) return "not defined";
  const hundredfold = 100 * share;
  const size = Math.abs(hundredfold);
  if (size !== 0 && size < 0.05) return signed(`${size < 1e-3 ? hundredfold.toExponential(1) : hundredfold.toPrecision(2)} %`);
  return signed(`${hundredfold.toFixed(1)} %`);
}

/** A count with thousands apart: 2,310. */
export function count(value) {
  return value.toLocaleString("en");
}

/** All digits, for tables that are copied; nothing where there is no number. */
export function exact(value) {
  return value === null || value === undefined ? "" : String(value);
}
