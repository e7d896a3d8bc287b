/** @param {object} app */
export function createToolbar(app) {
  return { destroy() {} };
}
