/** @param {object} app */
export function createBlind(app) {
  return { destroy() {} };
}
