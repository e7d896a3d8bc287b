// Text to the clipboard, text and pictures to a file: all by the browser, nothing by a server.

/** Copy text; false where the browser will not. @param {HTMLElement} root @param {string} text @returns {Promise<boolean>} */
export async function copyText(root, text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(root, text); // no secure context, or not allowed: notebooks on a hub
  }
}

function copyBySelection(root, text) {
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  area.className = "unseen";
  root.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus?.();
  return isCopied;
}

/** Offer a Blob as a file. @param {HTMLElement} root @param {Blob} blob @param {string} name */
export function download(root, blob, name) {
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  root.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** A name that every file system takes. @param {...string} parts @returns {string} */
export function fileName(...parts) {
  return parts.join("_").replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 120);
}
