/** @param {object} app */
export function createLink(app) {
  return { destroy() {} };
}
