// What the page shows, as a value; written into the link behind "#" and read back from it. Nothing here draws.

export const DEFAULTS = Object.freeze({
  view: "search",
  table: null,
  text: "",
  item: null,
  image: null, // a small copy of the image, base64url WebP: what lies behind "#" is never sent to a server
  like: [],
  unlike: [],
  weight: null, // λ; null: the usual one of the table (see fusion.js)
  depth: 50,
  least: 0,
  distinct: false,
  where: {},
  yes: [],
  no: [],
  hit: null,
});

const LISTS = { like: "like", unlike: "unlike", yes: "yes", no: "no" };
const NUMBERS = { weight: [0, 1], least: [0, 1], depth: [1, 10_000] };

/** Return the part of the link behind "#". Defaults are left out, so that the empty page has an empty link. */
export function encode(state) {
  const out = new URLSearchParams();
  for (const [key, standard] of Object.entries(DEFAULTS)) {
    const value = state[key] ?? standard;
    if (key in LISTS) for (const id of value) out.append(key, id);
    else if (key === "where") { if (Object.keys(value).length) out.set(key, JSON.stringify(value)); }
    else if (value !== standard && value !== null) out.set(key, String(value === true ? 1 : value));
  }
  return out.toString();
}

/** Read a link. A value that makes no sense is dropped, since people edit links. */
export function decode(fragment) {
  const link = new URLSearchParams(fragment.replace(/^#/, ""));
  const state = structuredClone(DEFAULTS);
  for (const key of Object.keys(DEFAULTS)) {
    if (!link.has(key)) continue;
    if (key in LISTS) state[key] = [...new Set(link.getAll(key))];
    else if (key in NUMBERS) state[key] = inRange(link.get(key), NUMBERS[key], DEFAULTS[key]);
    else if (key === "where") state[key] = condition(link.get(key));
    else if (key === "distinct") state[key] = link.get(key) === "1";
    else state[key] = link.get(key);
  }
  state.depth = Math.round(state.depth);
  if (state.view !== "table") state.view = "search";
  return state;
}

function inRange(text, [low, high], otherwise) {
  const number = Number(text);
  return text !== "" && number >= low && number <= high ? number : otherwise;
}

function condition(text) {
  try {
    const value = JSON.parse(text);
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

/** Return whether there is something to search with. */
export const asks = (state) => Boolean(state.text.trim() || state.item || state.image || state.like.length);

const REQUEST = ["table", "text", "item", "image", "like", "unlike", "depth", "distinct", "where"];

/** Return what identifies an answer of the server: λ, the threshold and the open hit need no new one. */
export const requestKey = (state) => JSON.stringify(REQUEST.map((key) => state[key] ?? null));

/** Return what identifies a query, for its marks. */
export const queryKey = (state) => JSON.stringify([state.table, state.text.trim(), state.item, state.image]);
