// Where things are: micrometres on the slide, pixels on the screen. One unit of the world is one micrometre.

/**
 * Micrometres to screen pixels as [a, b, c, d, e, f] of a canvas: x' = a x + c y + e, y' = b x + d y + f.
 * @param {{x: number, y: number, scale: number, rotation: number}} view centre in um, um per pixel, degrees clockwise
 * @param {number} width of the screen, in pixels
 * @param {number} height
 */
export function matrixOf({ x, y, scale, rotation }, width, height) {
  const angle = (rotation * Math.PI) / 180;
  const [cos, sin] = rotation % 90 === 0 ? quarter(rotation / 90) : [Math.cos(angle), Math.sin(angle)];
  const [a, b] = [cos / scale, sin / scale];
  return [a, b, -b, a, width / 2 - a * x + b * y, height / 2 - b * x - a * y];
}

function quarter(turns) {
  return [[1, 0], [0, 1], [-1, 0], [0, -1]][((turns % 4) + 4) % 4]; // exact, so that upright pixels stay sharp
}

/** Micrometres to screen. @param {object} view @returns {{x: number, y: number}} */
export function toScreen(view, width, height, x, y) {
  // About the centre, so that far from the origin no digits are lost.
  const [a, b] = matrixOf({ ...view, x: 0, y: 0 }, 0, 0);
  const [dx, dy] = [x - view.x, y - view.y];
  return { x: width / 2 + a * dx - b * dy, y: height / 2 + b * dx + a * dy };
}

/** Screen to micrometres. @param {object} view @returns {{x_um: number, y_um: number}} */
export function toSlide(view, width, height, x, y) {
  const [a, b] = matrixOf({ ...view, x: 0, y: 0 }, 0, 0);
  const [dx, dy] = [(x - width / 2) * view.scale ** 2, (y - height / 2) * view.scale ** 2];
  return { x_um: view.x + a * dx + b * dy, y_um: view.y - b * dx + a * dy };
}

/** Corners of the screen in micrometres, in order around it. @returns {number[][]} */
export function cornersOf(view, width, height) {
  return [[0, 0], [width, 0], [width, height], [0, height]].map(([x, y]) => {
    const { x_um, y_um } = toSlide(view, width, height, x, y);
    return [x_um, y_um];
  });
}

/** The upright box [x, y, width, height] around points. */
export function boxAround(points) {
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return [x, y, Math.max(...xs) - x, Math.max(...ys) - y];
}

/** The view that shows a box whole, with a little room around it. @param {number[]} box um @returns {object} view */
export function fitting(box, width, height, rotation = 0) {
  const [x, y, w, h] = box;
  const angle = (rotation * Math.PI) / 180;
  const [cos, sin] = [Math.abs(Math.cos(angle)), Math.abs(Math.sin(angle))];
  const scale = 1.04 * Math.max((w * cos + h * sin) / width, (w * sin + h * cos) / height);
  return { x: x + w / 2, y: y + h / 2, scale, rotation };
}
