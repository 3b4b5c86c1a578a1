// Marks of hits as right or wrong, per query. They stay in this browser and leave it as files that `looktwice eval` reads.
import { imageBlob } from "./api.js";
import { $, download, h, icon, iconButton, toast } from "./dom.js";
import { full } from "./images.js";
import { queryKey } from "./state.js";
import { plural } from "./text.js";
import { zip } from "./zip.js";

const SLOT = "looktwice.marks";

/** Return all queries with marks, oldest first: [{key, table, text, item, image, marks: {id: 0 or 1}}]. */
export function all() {
  try { return JSON.parse(localStorage.getItem(SLOT) ?? "[]"); } catch { return []; }
}

function save(queries) {
  try { localStorage.setItem(SLOT, JSON.stringify(queries)); } catch { toast("The browser's storage is full; download the marks and clear them.", { bad: true }); }
}

/** Put the marks of a state's query into the list that is kept. */
export function keep(state) {
  const { table, text, item, image } = state;
  const key = queryKey(state);
  const marks = grades(state);
  const queries = all().filter((one) => one.key !== key);
  if (Object.keys(marks).length) queries.push({ key, table, text: text.trim(), item, image, marks });
  save(queries);
}

/** Return the marks that are kept for a state's query, as {yes, no}. */
export function kept(state) {
  const found = all().find((one) => one.key === queryKey(state))?.marks ?? {};
  const of = (grade) => Object.keys(found).filter((id) => found[id] === grade);
  return { yes: of(1), no: of(0) };
}

/** Return a state with the mark of a hit set, or taken back if it is set already. */
export function toggled(state, id, grade) {
  const without = (list) => list.filter((one) => one !== id);
  const name = grade ? "yes" : "no";
  const again = state[name].includes(id);
  return { yes: without(state.yes), no: without(state.no), ...(again ? {} : { [name]: [...without(state[name]), id] }) };
}

/** Return an id as one TREC column, as looktwice/evaluate/trec.py does: white space and controls become \uXXXX. */
export const escapeId = (id) =>
  id.replace(/[\s\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]|\\(?=u[0-9a-f]{4})/gu, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** Return a state with these hits marked alike. */
export function graded(state, ids, grade) {
  const without = (list) => list.filter((one) => !ids.includes(one));
  const { yes, no } = { yes: without(state.yes), no: without(state.no) };
  return grade ? { yes: [...yes, ...ids], no } : { yes, no: [...no, ...ids] };
}

/** Return the marks of a state as {id: 0 or 1}. */
export const grades = ({ yes, no }) => Object.fromEntries([...yes.map((id) => [id, 1]), ...no.map((id) => [id, 0])]);

/** Say what became of hits that were just marked. */
export function said({ yes, no }, ids) {
  const [id] = ids;
  const as = yes.includes(id) ? "marked right" : no.includes(id) ? "marked wrong" : "no longer marked";
  return `${ids.length > 1 ? plural(ids.length, "hit") : id} ${as}`;
}

/** Return labels in TREC's four columns. */
export const qrels = (queries) =>
  queries.flatMap(({ marks }, place) => Object.entries(marks).map(([id, grade]) => `q${place + 1} 0 ${escapeId(id)} ${grade}\n`)).join("");

/** Return the query file: one JSON line per query; `names` are the files of their images, null where there is none. */
export const queryLines = (queries, names) =>
  queries.map(({ text }, place) =>
    `${JSON.stringify({ id: `q${place + 1}`, ...(names[place] && { image: names[place] }), ...(text && { text }) })}\n`).join("");

async function imageOf({ table, item, image }) {
  if (item) return imageBlob(table, item);
  return image ? fromData(full(image).uri) : null;
}

function fromData(uri) {
  const [, type] = /^data:([^;,]*)/.exec(uri);
  return new Blob([Uint8Array.from(atob(uri.slice(uri.indexOf(",") + 1)), (sign) => sign.charCodeAt(0))], { type });
}

/** Save all marks as one archive: qrels.txt, queries.jsonl and the query images. */
export async function saveArchive() {
  const queries = all();
  const images = await Promise.all(queries.map(imageOf));
  const names = images.map((blob, place) => blob && `q${place + 1}.${blob.type.split("/")[1] || "img"}`);
  const text = (lines) => new TextEncoder().encode(lines);
  const files = [["qrels.txt", text(qrels(queries))], ["queries.jsonl", text(queryLines(queries, names))]];
  for (const [place, blob] of images.entries()) if (blob) files.push([names[place], new Uint8Array(await blob.arrayBuffer())]);
  download(zip(files), "looktwice-marks.zip");
}

/** Open the dialog of marks. `act` has use(), which searches with the marks, and changed(), after they were cleared. */
export function open(state, act) {
  const dialog = $("#marks");
  if (state.yes.length + state.no.length) keep(state); // those of a link are kept too
  const queries = all();
  const close = () => dialog.close();
  const usable = state.yes.length + state.no.length > 0;
  dialog.replaceChildren(
    h("header", {}, h("h2", {}, "Marks"), iconButton("close", "Close", close)),
    queries.length ? h("ul.marked", {}, queries.map((one) => row(one, state))) : h("p.hint", {}, "Mark hits right (✓) or wrong (✗); the marks of every query gather here."),
    h("p.hint", {}, "Marks stay in this browser. The archive holds qrels.txt, queries.jsonl and the query images, for ", h("code", {}, "looktwice eval run"), "."),
    h("footer", {},
      h("button.pill", { type: "button", disabled: !usable, onclick: () => { close(); act.use(); } }, icon("like"), "Search with these marks"),
      h("button.pill", { type: "button", disabled: !queries.length, onclick: saveArchive }, icon("download"), "Download"),
      h("button.pill", { type: "button", disabled: !queries.length, onclick: () => { save([]); close(); act.changed(); } }, icon("trash"), "Clear all"),
    ),
  );
  dialog.showModal();
}

function row(query, state) {
  const grades = Object.values(query.marks);
  const right = grades.filter(Boolean).length;
  const name = query.text || query.item || "an image";
  const here = query.key === queryKey(state) ? " (shown now)" : "";
  return h("li", {}, h("bdi", {}, name), h("span.hint", {}, `${plural(right, "right", "right")}, ${plural(grades.length - right, "wrong", "wrong")}${here}`));
}
