/** @param {object} app */
export function createListPage(app) {
  return { destroy() {} };
}
