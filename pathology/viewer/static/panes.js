/** @param {object} app */
export function createPanes(app) {
  return { destroy() {} };
}
