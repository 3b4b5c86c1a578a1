// Talks to the server. All addresses are relative, so the page also works where it is mounted below another path.

const base = new URL("v1/", document.baseURI);
let key = read();
let askForKey = async () => null;

function read() {
  try { return sessionStorage.getItem("looktwice.key"); } catch { return null; }
}

/** Say how to ask a person for the API key. */
export function onMissingKey(ask) {
  askForKey = ask;
}

/** An answer of the server that says why it refused. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code ?? null;
  }
}

export const at = (path) => new URL(path, base);
export const item = (table, id) => `tables/${encodeURIComponent(table)}/items/${encodeURIComponent(id)}`;
/** Return the path of a preview. `link` is the one that the server named: its `v` lets the browser keep the image. */
export function previewPath(table, id, width, link) {
  const version = /[?&]v=(\w+)/.exec(link ?? "")?.[1];
  return `${item(table, id)}/preview?w=${width}${version ? `&v=${version}` : ""}`;
}

export const originalPath = (table, id) => `${item(table, id)}/original`;

const headers = (more = {}) => (key ? { ...more, Authorization: `Bearer ${key}` } : more);

async function send(path, options = {}) {
  for (;;) {
    const answer = await reached(fetch(at(path), { ...options, headers: headers(options.headers) }));
    if (answer.ok) return answer;
    const error = await answer.json().then((body) => body.error, () => null);
    if (answer.status !== 401 || !(await newKey(error))) throw new Refused(answer.status, error);
  }
}

async function reached(answer) {
  try {
    return await answer;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server cannot be reached; see whether `looktwice serve` still runs.", code: "offline" });
  }
}

let asking = null;

async function newKey(error) {
  asking ??= askForKey(error?.message).finally(() => { asking = null; });
  const given = await asking;
  if (!given) return false;
  key = given;
  try { sessionStorage.setItem("looktwice.key", given); } catch { /* kept in memory */ }
  return true;
}

/** GET a path below v1/ and return its JSON. */
export const get = async (path, options) => (await send(path, options)).json();

/** POST JSON to a path below v1/ and return the JSON of the answer. */
export const post = async (path, body, options = {}) => (await send(path, asJson(body, options))).json();

/** DELETE a path below v1/. */
export const remove = (path) => send(path, { method: "DELETE" });

const asJson = (body, options) => ({
  method: "POST", body: JSON.stringify(body), ...options, headers: { "Content-Type": "application/json" },
});

/** POST JSON and call `on(name, data)` for every server-sent event of the answer. */
export async function stream(path, body, on, signal) {
  const answer = await send(path, asJson(body, { signal }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const parsed = events(rest + (value ?? "").replaceAll("\r\n", "\n") + (done ? "\n\n" : ""));
    rest = parsed.rest;
    for (const [name, data] of parsed.events) on(name, data);
    if (done) return;
  }
}

/** Split the text of an event stream into whole events and the rest that is not whole yet. */
export function events(text) {
  const parts = text.split("\n\n");
  const rest = parts.pop();
  const found = [];
  for (const part of parts) {
    let name = "message";
    const data = [];
    for (const line of part.split("\n")) {
      if (line.startsWith("event:")) name = line.slice(6).trim();
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
    if (data.length) found.push([name, JSON.parse(data.join("\n"))]);
  }
  return { events: found, rest };
}

/** PUT JSON with progress: `on(share)` hears how much of the body has been sent. */
export function upload(path, body, on) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", at(path));
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers({ "Content-Type": "application/json" }))) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => event.lengthComputable && on(event.loaded / event.total));
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request.response);
      else reject(new Refused(request.status, request.response?.error));
    });
    request.addEventListener("error", () => reject(new Refused(0, { message: "The server cannot be reached." })));
    request.send(JSON.stringify(body));
  });
}

const blobs = new Map();

/** Give an <img> its address. Where the server wants a key, the bytes are fetched with it and shown from memory. */
export async function show(image, path) {
  if (!key) { image.src = at(path); return; }
  if (!blobs.has(path)) {
    if (blobs.size > 600) forget(blobs.keys().next().value);
    blobs.set(path, send(path).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob)));
  }
  try {
    image.src = await blobs.get(path);
  } catch {
    blobs.delete(path);
    image.dispatchEvent(new Event("error"));
  }
}

function forget(path) {
  blobs.get(path).then((address) => URL.revokeObjectURL(address), () => {});
  blobs.delete(path);
}

const fetchBlob = async (path) => (await send(path)).blob();

/** Return the bytes of an item's image: the original, or the largest preview where there is none. */
export const imageBlob = (table, id) => fetchBlob(originalPath(table, id)).catch(() => fetchBlob(previewPath(table, id, 1280)));
