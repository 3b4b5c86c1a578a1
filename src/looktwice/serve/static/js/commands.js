// Command lines for the terminal that do what the page shows.
import { ruleOf } from "./fusion.js";
import { fusionName } from "./request.js";

/** Quote a word for a POSIX shell. */
export const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) && !word.startsWith("-") ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** Return a filter of a link as the SQL that --where takes. */
export function sql(where) {
  const parts = Object.entries(where).flatMap(([name, condition]) => {
    const column = /^[a-z_]\w*$/i.test(name) ? name : `\`${name}\``;
    if (condition === null) return [`${column} IS NULL`];
    if (Array.isArray(condition)) return [`${column} IN (${condition.map(literal).join(", ")})`];
    if (typeof condition !== "object") return [`${column} = ${literal(condition)}`];
    return Object.entries(condition).map(([sign, value]) => `${column} ${sign === "like" ? "LIKE" : sign} ${literal(value)}`);
  });
  return parts.join(" AND ");
}

const literal = (value) => (typeof value === "string" ? `'${value.replaceAll("'", "''")}'` : String(value).toUpperCase());

/** Return `looktwice search …` for a state. `path` is the file of the query image where the page knows it. */
export function searchCommand(about, state, path) {
  const words = ["looktwice", "search", about.path ?? `${about.name}.lt`];
  const text = state.text.trim();
  const image = state.item || state.image ? path ?? "query.jpg" : null;
  if (image && text) words.push("--image", image, "--text", text);
  else words.push(image ?? text);
  const { weight, odds } = ruleOf(state, about);
  if (about.mllm && state.depth) words.push("--mllm", about.mllm, "--shortlist", String(state.depth), "--maxsim", String(odds ? about.maxsim : 0), "--fusion", odds ? fusionName(weight) : String(weight));
  else words.push("--no-rerank");
  if (about.mllm && state.depth && odds && about.zoom) words.push("--zoom");
  if (Object.keys(state.where).length) words.push("--where", sql(state.where));
  return words.map(quoted).join(" ");
}
