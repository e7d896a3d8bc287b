/** @param {object} app */
export function createTools(app) {
  return { destroy() {} };
}
