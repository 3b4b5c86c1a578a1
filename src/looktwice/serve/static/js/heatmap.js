// Lays over an image how much each part of it mattered: how far p falls when that part is replaced by the mean.
import { h } from "./dom.js";

const FAINT = 0.04; // a fall of p by less than this never gets the full colour: no part may look decisive that is not
const NOTHING = 0.005;

/** Return an overlay for a map {rows, cols, values, box}; its element covers the image it is laid over. */
export function heatmap({ rows, cols, values: cells, box }) {
  const canvas = h("canvas", { width: cols, height: rows });
  const values = cells.flat();
  paint(canvas, values, Math.max(FAINT, ...values.map(Math.abs)));
  const element = h("div.heat", { role: "img", "aria-label": spoken({ rows, cols, values: cells }) }, canvas);
  if (box) element.append(outline(box));
  return element;
}

function paint(canvas, values, most) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, place) => {
    const strength = Math.min(1, Math.abs(value) / most);
    const colour = value > 0 ? [255, 196 - 120 * strength, 40] : [70, 130, 255];
    image.data.set([...colour, 255 * 0.85 * strength ** 0.8], 4 * place);
  });
  context.putImageData(image, 0, 0);
}

function outline([left, top, right, bottom]) {
  const element = h("span.box");
  const share = (value) => `${(100 * value).toFixed(2)}%`;
  Object.assign(element.style, { left: share(left), top: share(top), width: share(right - left), height: share(bottom - top) });
  return element;
}

/** Return where the part that mattered most lies, for those who do not see the map. */
export function spoken({ rows, cols, values: cells }) {
  const values = cells.flat();
  const most = values.indexOf(Math.max(...values));
  if (values[most] < NOTHING) return "No single part mattered: without any of them p stays as it is.";
  const third = (place, n) => Math.min(2, Math.floor((3 * (place + 0.5)) / n));
  const row = ["top", "middle", "bottom"][third(Math.floor(most / cols), rows)];
  const column = ["left", "centre", "right"][third(most % cols, cols)];
  return `What mattered most lies at the ${row} ${column}: without it p falls by ${values[most].toFixed(2)}.`;
}
