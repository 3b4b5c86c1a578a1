// The page of a table: what it holds, what it is made with, where its bytes went, what failed; and adding to it.
import { get } from "./api.js";
import { h } from "./dom.js";
import { bytes, count, plural } from "./text.js";
import { uploader } from "./upload.js";

const LEDGER_STEP = 100;
const WORDS = new Set(["type", "values", "stage", "reason", "detail"]); // columns of words stand on the left

/** Fill `root` with the page of a table. `changed()` is called after something was added. */
export async function tablePage(root, about, facets, changed) {
  root.replaceChildren(...[
    h("h1", {}, h("bdi", {}, about.name)),
    h("p.lead", {}, sentence(about)),
    figures(about),
    about.writable ? uploader(about, changed) : null,
    h("div.two", {}, space(about), made(about)),
    columns(facets),
    await ledger(about),
  ].filter(Boolean));
}

function sentence(about) {
  const look = about.mllm ? `${about.mllm} takes the second look` : "no model is loaded for a second look; start with --mllm NAME";
  return `${plural(about.items, "item")}, found by ${about.encoder?.name ?? "its encoder"}; ${look}.`;
}

function figures(about) {
  const one = (value, name) => h("div", {}, h("dd", {}, value), h("dt", {}, name));
  return h("dl.figures", {},
    one(count(about.items), "items"),
    one(bytes(about.bytes?.total ?? 0), "on disk"),
    one(bytes(about.bytes_per_item?.total ?? 0), "per item"),
    one(count(about.failed ?? 0), "failed"),
  );
}

function space(about) {
  const parts = Object.entries(about.bytes ?? {}).filter(([name, n]) => name !== "total" && n > 0).sort((a, b) => b[1] - a[1]);
  const total = parts.reduce((sum, [, n]) => sum + n, 0) || 1;
  const bar = h("div.stack", { "aria-hidden": "true" }, parts.map(([, n], place) => {
    const part = h(`i.part-${Math.min(place, 6)}`);
    part.style.flexGrow = n / total;
    return part;
  }));
  const rows = parts.map(([name, n], place) => h("tr", {},
    h("th", { scope: "row" }, h(`i.swatch.part-${Math.min(place, 6)}`, { "aria-hidden": "true" }), name), h("td", {}, bytes(n)), h("td", {}, bytes(about.bytes_per_item?.[name] ?? 0))));
  return h("section", {}, h("h2", {}, "Bytes"), bar, grid(["part", "on disk", "per item"], rows));
}

function made(about) {
  const sets = (about.token_sets ?? []).map((one) => [`tokens ${one.codec}`, `${one.mllm}, ${one.preprocessing ?? ""}`]);
  const index = about.index?.kind === "exact" ? "exact, every vector is compared" : about.index ? `${about.index.kind}, recall@100 ${Number(about.index.recall).toFixed(4)}` : "unknown";
  const facts = [
    ["encoder", `${about.encoder?.name}, ${count(about.encoder?.dim ?? 0)} dimensions`],
    ["revision", about.encoder?.revision?.slice(0, 12) ?? "unknown"],
    ["computed in", (about.dtypes ?? []).join(", ") || "unknown"],
    ["search", index],
    ["second look", about.mllm ?? "none"],
    ...(sets.length ? sets : [["visual tokens", "none stored"]]),
    ["calibration", about.calibration ? `${about.calibration.method}` : "none"],
    ["format", about.format],
  ];
  return h("section", {}, h("h2", {}, "Made with"), h("dl.pairs", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("bdi", {}, String(value ?? "")))))));
}

function columns(facets) {
  if (!facets.length) return h("section", {}, h("h2", {}, "Columns"), h("p.hint", {}, "None. `looktwice index --column NAME:TYPE` makes metadata filterable."));
  const rows = facets.map((one) => h("tr", {},
    h("th", { scope: "row" }, h("bdi", {}, one.name)), h("td.word", {}, one.type), h("td", {}, count(one.distinct ?? 0)), h("td", {}, count(one.missing ?? 0)), h("td.word", {}, h("bdi", {}, span(one)))));
  return h("section", {}, h("h2", {}, "Columns"), grid(["column", "type", "distinct", "missing", "values"], rows));
}

function span(column) {
  if (column.values?.length) return column.values.slice(0, 6).map(({ value, count: n }) => `${value} (${count(n)})`).join(", ") + (column.distinct > 6 ? ", …" : "");
  return typeof column.min === "number" ? `${column.min} to ${column.max}` : "";
}

async function ledger(about) {
  const section = h("section", {}, h("h2", {}, "Ledger"));
  const page = await get(`tables/${encodeURIComponent(about.name)}/ledger?offset=0&limit=${LEDGER_STEP}`).catch(() => null);
  if (!page) return null;
  if (!page.total) { section.append(h("p.hint", {}, "Nothing failed.")); return section; }
  const reasons = Object.entries(page.reasons ?? {}).map(([reason, n]) => h("span.pill", {}, `${reason} `, h("b", {}, count(n))));
  const body = h("tbody", {}, page.entries.map(entry));
  let shown = page.entries.length;
  const more = h("button.pill", {
    type: "button", hidden: shown >= page.total,
    onclick: async () => {
      const next = await get(`tables/${encodeURIComponent(about.name)}/ledger?offset=${shown}&limit=${LEDGER_STEP}`);
      body.append(...next.entries.map(entry));
      shown += next.entries.length;
      more.hidden = shown >= page.total || !next.entries.length;
    },
  }, "Show more");
  section.append(h("p.reasons", {}, reasons), scroll(h("table", {}, head(["item", "stage", "reason", "detail"]), body)), more);
  return section;
}

const entry = (one) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, one.id ?? "–")), h("td.word", {}, one.stage), h("td.word", {}, one.reason), h("td.word", {}, h("bdi", {}, one.detail ?? "")));
const head = (names) => h("thead", {}, h("tr", {}, names.map((name) => h(WORDS.has(name) ? "th.word-head" : "th", { scope: "col" }, name))));
const scroll = (table) => h("div.scroll", { tabIndex: 0, role: "group", "aria-label": "Table, scrolls sideways" }, table);
const grid = (names, rows) => scroll(h("table", {}, head(names), h("tbody", {}, rows)));
