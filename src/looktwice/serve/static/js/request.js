// Turns the state of the page into the requests that the server understands.
import { ruleOf } from "./fusion.js";
import { full } from "./images.js";

export const FIRST = 200; // hits asked for at first; more come as one scrolls

/** Return the name of a fusion with a middle look, as --fusion takes it. */
export const fusionName = (weight) => `coarse=0,maxsim=${weight},odds=${Number((1 - weight).toFixed(6))}`;

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

/** Return how the looks are joined; where the table has a middle look, it orders what the second one reads. */
function looks(state, about) {
  const { weight, odds } = ruleOf(state, about);
  if (!odds) return { maxsim: 0, fusion: weight };
  return { maxsim: about.maxsim, fusion: fusionName(weight) };
}
