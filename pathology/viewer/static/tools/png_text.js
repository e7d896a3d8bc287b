// Text inside PNG files: iTXt chunks (UTF-8, not compressed) behind the header, so that a picture sent around says what it is of.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const HEADER_BYTES = 8 + 4 + 4 + 13 + 4; // signature, and IHDR with its length, name and checksum

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value >>> 0;
});

/** The CRC-32 of PNG and zip. @param {Uint8Array} bytes @returns {number} */
function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

function chunk(name, data) {
  const made = new Uint8Array(12 + data.length);
  const view = new DataView(made.buffer);
  view.setUint32(0, data.length);
  made.set(new TextEncoder().encode(name), 4);
  made.set(data, 8);
  view.setUint32(8 + data.length, crc32(made.subarray(4, 8 + data.length)));
  return made;
}

function textChunk(keyword, text) {
  if (!/^[\x21-\x7e](?:[\x20-\x7e]{0,77}[\x21-\x7e])?$/.test(keyword)) throw new Error(`no keyword of PNG: ${keyword}`);
  const encoder = new TextEncoder();
  // keyword, 0, not compressed, method 0, no language, no translated keyword, text
  const head = [...encoder.encode(keyword), 0, 0, 0, 0, 0];
  const body = encoder.encode(text);
  const data = new Uint8Array(head.length + body.length);
  data.set(head);
  data.set(body, head.length);
  return chunk("iTXt", data);
}

/**
 * A PNG with texts in it.
 * @param {ArrayBuffer} png
 * @param {Object<string, string>} texts by keyword, 1 to 79 ASCII characters
 * @returns {Blob}
 */
export function withTexts(png, texts) {
  const bytes = new Uint8Array(png);
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) throw new Error("the browser made no PNG");
  const chunks = Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text));
  return new Blob([bytes.subarray(0, HEADER_BYTES), ...chunks, bytes.subarray(HEADER_BYTES)], { type: "image/png" });
}
