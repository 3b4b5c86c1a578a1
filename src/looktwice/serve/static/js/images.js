// Images that come from outside: files, the clipboard, the camera, regions. Each gets a small copy for the link.

const LARGEST = 2048; // pixels of the longer side that are sent; larger ones are scaled down first
const SMALL = 320; // pixels of the copy that the link carries
const SENT_AS_THEY_ARE = new Set(["image/jpeg", "image/png", "image/webp"]);
const known = new Map(); // small copy → {uri, shown}

/** Read an image. Return the small copy that stands for it in the link; `full` gives the rest. */
export async function take(blob) {
  const bitmap = await decoded(blob);
  if (!bitmap) return unreadableHere(blob);
  const large = Math.max(bitmap.width, bitmap.height) > LARGEST;
  const body = large || !SENT_AS_THEY_ARE.has(blob.type) ? await drawn(bitmap, LARGEST, "image/jpeg", 0.92) : blob;
  const small = toBase64Url(await dataUri(await drawn(bitmap, SMALL, "image/webp", 0.8)));
  known.set(small, { uri: await dataUri(body), shown: URL.createObjectURL(body) });
  remember(small);
  return small;
}

/** Return {uri, shown, small} of an image of this session; from a link of another one only the small copy is left. */
export function full(small) {
  const found = known.get(small) ?? remembered(small);
  return found ? { ...found, small: false } : { uri: fromBase64Url(small), shown: fromBase64Url(small), small: true };
}

/** Return a region of an image: `box` is [x, y, width, height], each a share of the side. */
export async function region(source, [x, y, w, h]) {
  const [left, top] = [Math.round(x * source.width), Math.round(y * source.height)];
  const [width, height] = [Math.max(1, Math.round(w * source.width)), Math.max(1, Math.round(h * source.height))];
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(source, left, top, width, height, 0, 0, width, height);
  return encoded(canvas, "image/jpeg", 0.95);
}

async function decoded(blob) {
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

/** A browser that cannot read HEIC or TIFF sends the bytes: the server may know them. */
async function unreadableHere(blob) {
  if (!blob.type.startsWith("image/") && blob.size > 0 && blob.type) return null;
  const uri = await dataUri(blob);
  const small = toBase64Url(await dataUri(await drawn(await blank(), 2, "image/webp", 0.5))) + `.${known.size}`;
  known.set(small, { uri, shown: null });
  return small;
}

const blank = () => createImageBitmap(new ImageData(2, 2));

async function drawn(bitmap, largest, type, quality) {
  const scale = Math.min(1, largest / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  if (type === "image/jpeg") { context.fillStyle = "white"; context.fillRect(0, 0, width, height); }
  context.drawImage(bitmap, 0, 0, width, height);
  return encoded(canvas, type, quality);
}

const encoded = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));

/** Return the bytes of a blob as a data: address. */
export function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

const toBase64Url = (uri) => uri.slice(uri.indexOf(",") + 1).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

function fromBase64Url(text) {
  const plain = text.replace(/\.\d+$/, "").replaceAll("-", "+").replaceAll("_", "/");
  return `data:image/webp;base64,${plain}${"=".repeat((4 - (plain.length % 4)) % 4)}`;
}

const slot = (small) => `looktwice.image.${small.length}.${small.slice(-40)}`;

function remember(small) {
  try { sessionStorage.setItem(slot(small), known.get(small).uri); } catch { /* too large for the storage: the link's copy serves after a reload */ }
}

function remembered(small) {
  try {
    const uri = sessionStorage.getItem(slot(small));
    return uri ? { uri, shown: uri } : null;
  } catch {
    return null;
  }
}
