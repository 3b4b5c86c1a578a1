// Chooses a region of an image, with a finger, a mouse or the arrow keys, and searches with it.
import { imageBlob } from "./api.js";
import { $, h, iconButton, toast } from "./dom.js";
import { region } from "./images.js";

const LEAST = 0.04; // share of a side

/** Open the dialog for {shown} (an address of this page) or {item}. `use(blob)` gets the region. */
export async function crop({ shown, item }, table, use) {
  try {
    const blob = item ? await imageBlob(table, item) : await blobOf(shown);
    open(await createImageBitmap(blob, { imageOrientation: "from-image" }), use);
  } catch (error) {
    toast(`This image cannot be opened for cropping: ${error.message}`, { bad: true });
  }
}

/** Return the bytes behind an address of this page. An <img> may show it where the page's policy forbids fetch(). */
async function blobOf(address) {
  const image = Object.assign(new Image(), { src: address });
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function open(bitmap, use) {
  const dialog = $("#crop");
  const canvas = h("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const frame = h("div.frame", {
    tabIndex: 0, role: "group", "aria-describedby": "crop-help",
    "aria-label": "Region. Arrow keys move it, with Shift they resize it, Enter searches.",
  }, ...["nw", "ne", "sw", "se"].map((corner) => h(`i.handle.${corner}`, { data: { corner } })));
  const stage = h("div.stage", {}, canvas, frame);
  stage.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
  stage.style.setProperty("--ratio", bitmap.width / bitmap.height);
  const box = new Box(stage, frame);
  const go = async () => {
    dialog.close();
    use(await region(bitmap, box.value));
  };
  frame.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
  dialog.replaceChildren(
    h("header", {}, h("h2", {}, "Search with a region"), iconButton("close", "Close", () => dialog.close())),
    stage,
    h("footer", {}, h("p.hint", { id: "crop-help" }, "Drag over the image. Arrow keys move the region, with Shift they resize it."),
      h("button.go", { type: "button", onclick: go }, "Search this region")),
  );
  dialog.showModal();
  frame.focus();
}

/** A rectangle over a stage: `value` is [x, y, width, height] in shares of the sides. */
class Box {
  constructor(stage, frame) {
    Object.assign(this, { stage, frame, value: [0.2, 0.2, 0.6, 0.6] });
    stage.addEventListener("pointerdown", (event) => this.#grab(event));
    frame.addEventListener("keydown", (event) => this.#key(event));
    this.#draw();
  }

  #draw() {
    const [x, y, w, h_] = this.value.map((share) => `${(100 * share).toFixed(3)}%`);
    Object.assign(this.frame.style, { left: x, top: y, width: w, height: h_ });
  }

  #set(x, y, w, h_) {
    w = Math.min(1, Math.max(LEAST, w));
    h_ = Math.min(1, Math.max(LEAST, h_));
    this.value = [Math.min(1 - w, Math.max(0, x)), Math.min(1 - h_, Math.max(0, y)), w, h_];
    this.#draw();
  }

  #grab(event) {
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    const start = this.#point(event), [x, y, w, h_] = this.value, { corner } = event.target.dataset;
    const inside = event.target === this.frame;
    const anchor = corner ? [corner.includes("w") ? x + w : x, corner.includes("n") ? y + h_ : y] : start;
    const onmove = (move) => {
      const [px, py] = this.#point(move);
      if (inside) this.#set(x + px - start[0], y + py - start[1], w, h_);
      else this.#set(Math.min(px, anchor[0]), Math.min(py, anchor[1]), Math.abs(px - anchor[0]), Math.abs(py - anchor[1]));
    };
    this.stage.addEventListener("pointermove", onmove);
    this.stage.addEventListener("pointerup", () => this.stage.removeEventListener("pointermove", onmove), { once: true });
    this.frame.focus();
  }

  #point(event) {
    const area = this.stage.getBoundingClientRect();
    const share = (value) => Math.min(1, Math.max(0, value));
    return [share((event.clientX - area.left) / area.width), share((event.clientY - area.top) / area.height)];
  }

  #key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const [dx, dy] = step.map((one) => one * 0.02), [x, y, w, h_] = this.value;
    if (event.shiftKey) this.#set(x, y, w + dx, h_ + dy);
    else this.#set(x + dx, y + dy, w, h_);
  }
}
