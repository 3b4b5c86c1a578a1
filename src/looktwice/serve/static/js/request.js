// Turns the state of the page into the requests that the server understands.
import { full } from "./images.js";

export const FIRST = 200; // hits asked for at first; more come as one scrolls

/** Return the query of a request. */
export function queryOf({ text, item, image }) {
  const words = text.trim();
  return { ...(words && { text: words }), ...(item && { item }), ...(image && { image: full(image).uri }) };
}

/** Return the body of a search; `about` is what the server says of the table. */
export function searchBody(state, about, more = {}) {
  const { table, like, unlike, depth, where, distinct } = state;
  return {
    table, query: queryOf(state),
    ...(like.length && { like }), ...(unlike.length && { unlike }), ...(Object.keys(where).length && { where }), ...(distinct && { distinct }),
    k: Math.min(Math.max(FIRST, depth), about.limits?.k ?? FIRST), shortlist: Math.max(1, depth),
    rerank: depth > 0 && Boolean(about.mllm), stream: true, ...looks(state, about), ...more,
  };
}

/** Return how the looks are joined; where tokens are stored, a middle look orders what the second one reads. */
function looks({ depth, weight }, about) {
  if (!about.maxsim || !depth) return { fusion: weight };
  return { maxsim: Math.max(FIRST, depth), fusion: `coarse=0,maxsim=${weight},p=${1 - weight}` };
}
