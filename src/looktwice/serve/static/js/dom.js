// Builds elements. Text goes in as text nodes only, so that no id, file name or metadata is ever read as HTML.
import { ICONS } from "./icons.js";

export const $ = (selector, root = document) => root.querySelector(selector);

/** Return a new element: h("button.round", {title, onclick}, child, …). Null and false children are skipped. */
export function h(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) set(element, key, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, key, value) {
  if (value === undefined || value === null || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key === "data") Object.assign(element.dataset, value);
  else if (key in element && !key.startsWith("aria") && key !== "list") element[key] = value;
  else element.setAttribute(key, value === true ? "" : value);
}

const SVG = "http://www.w3.org/2000/svg";

/** Return a new SVG element with the given attributes. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Return an icon by its name in icons.js. It is decoration: the control beside it carries the name. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** Return a button with an icon, and a name for those who do not see it. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button.plain", { type: "button", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

/** Say a sentence to screen readers, politely. */
export function announce(text) {
  const status = $("#status");
  if (status.textContent !== text) status.textContent = text;
}

let hiding = 0;

/** Show a short message at the bottom of the window; screen readers hear it too. */
export function toast(text, { bad = false } = {}) {
  const element = $("#toast");
  element.textContent = text;
  element.className = bad ? "shown bad" : "shown";
  clearTimeout(hiding);
  hiding = setTimeout(() => { element.className = ""; }, bad ? 9000 : 3500);
}

/** Copy a text, and say so. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`Copied ${what}.`);
  } catch {
    toast(`The browser refused to copy; select it by hand: ${text}`, { bad: true });
  }
}

/** Save bytes as a file of the browser's downloads. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
