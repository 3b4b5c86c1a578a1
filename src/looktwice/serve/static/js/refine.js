// Everything that narrows or re-weighs an answer: λ, the least p, depth, near-duplicates, and filters of the columns.
import { promisedPrecision, ruleOf } from "./fusion.js";
import { h, icon } from "./dom.js";
import { count, fixed, percent } from "./text.js";

const DEPTHS = [0, 10, 20, 50, 100, 200, 500, 1000];

export class Refine {
  /** `act` has adjust(patch), which needs no server, and ask(patch), which does. */
  constructor(root, act) {
    this.root = root;
    this.act = act;
    this.weight = slider("weight", "Balance of the two looks", { step: 0.01 }, (value) => act.adjust({ weight: Number((1 - value).toFixed(2)) }));
    this.least = slider("least", "Least p", { step: 0.01 }, (value) => act.adjust({ least: value }));
    this.promise = h("p.hint");
    this.precisions = h("div.pills");
    this.depth = h("select", { onchange: () => act.ask({ depth: Number(this.depth.value) }) });
    this.distinct = h("input", { type: "checkbox", onchange: () => act.ask({ distinct: this.distinct.checked }) });
    this.filters = h("div.filters");
    this.second = h("div.second-only", {},
      h("section", {}, this.weight.element, h("div.ends", { "aria-hidden": "true" }, h("span", {}, "first look"), h("span", {}, "second look"))),
      h("section", {}, this.least.element, this.precisions, this.promise),
    );
    root.append(
      h("h2.spoken", {}, "Refine"),
      this.second,
      h("section.rows", {},
        h("label.row", {}, h("span", {}, "Look twice at"), this.depth),
        h("label.row", {}, h("span", {}, "Fold near-duplicates"), this.distinct),
      ),
      this.filters,
    );
  }

  /** Show the controls for a table: `about` is the table's page, `facets` its columns. */
  prepare(about, facets) {
    this.about = about;
    const most = about.limits?.shortlist ?? 1000;
    const depths = about.mllm ? DEPTHS.filter((n) => n <= most) : [0];
    this.depth.replaceChildren(...depths.map((n) => h("option", { value: n }, n ? `${count(n)} hits` : "none")));
    this.depth.disabled = !about.mllm;
    this.second.hidden = !about.mllm;
    this.facets = facets.map((column) => facet(column, (condition) => this.#filter(column.name, condition)));
    this.filters.replaceChildren(...this.facets.map((one) => one.element));
    this.#precisionPills();
  }

  /** Show a state; the values of columns are counted among `hits`, those of the present answer. */
  show(state, hits = []) {
    const { weight, odds } = ruleOf(state, this.about);
    const [known, asked] = odds ? ["maxsim", "log-odds of p"] : ["coarse", "p"];
    this.weight.put(1 - weight, `score = ${fixed(weight, 2)} ${known} + ${fixed(1 - weight, 2)} ${asked}`, `λ ${fixed(weight, 2)}`);
    this.least.put(state.least, `${fixed(state.least, 2)} or more`, state.least ? `p ≥ ${fixed(state.least, 2)}` : "all");
    this.promise.textContent = this.#promised(state.least);
    for (const pill of this.precisions.children) pill.setAttribute("aria-pressed", String(Number(pill.value) === state.least));
    if (![...this.depth.options].some((option) => Number(option.value) === state.depth)) {
      this.depth.append(h("option", { value: state.depth }, `${count(state.depth)} hits`));
    }
    this.depth.value = state.depth;
    this.distinct.checked = state.distinct;
    for (const one of this.facets ?? []) one.show(state.where[one.name], hits);
    this.where = state.where;
  }

  #filter(name, condition) {
    const { [name]: _, ...others } = this.where;
    this.act.ask({ where: condition === undefined ? others : { ...others, [name]: condition } });
  }

  #promised(least) {
    const calibration = this.about?.calibration;
    if (!calibration || !least) return "";
    const precision = promisedPrecision(calibration.thresholds, least);
    return precision === null ? "Calibrated: too low for any promised precision." : `Calibrated: at least ${percent(precision)} of these are right.`;
  }

  #precisionPills() {
    const thresholds = Object.entries(this.about.calibration?.thresholds ?? {});
    this.precisions.replaceChildren(...thresholds.map(([precision, p]) =>
      h("button.pill", {
        type: "button", value: round(p), title: `p of at least ${fixed(p, 2)}`,
        onclick: (event) => this.act.adjust({ least: event.currentTarget.getAttribute("aria-pressed") === "true" ? 0 : round(p) }),
      }, percent(Number(precision)))));
    if (thresholds.length) this.precisions.prepend(h("span.hint", {}, "precision"));
  }
}

const round = (p) => Math.ceil(p * 100) / 100;

function slider(name, label, { step }, oninput) {
  const output = h("output");
  const input = h("input", { type: "range", name, min: 0, max: 1, step, id: `range-${name}`, oninput: () => oninput(Number(input.value)) });
  output.setAttribute("for", input.id);
  const element = h("div.slider", {}, h("label", { htmlFor: input.id }, label), output, input);
  const put = (value, said, shown) => {
    input.value = value;
    input.style.setProperty("--share", value);
    input.setAttribute("aria-valuetext", said);
    output.textContent = shown;
  };
  return { element, put };
}

/** Return the filter of one column: boxes for values with counts, a range for numbers, else a text to contain. */
function facet(column, change) {
  const make = column.values?.length ? values : column.type === "number" ? range : containing;
  const inner = make(column, change);
  const title = h("summary", {}, h("bdi", {}, column.name.replaceAll("_", " ")), h("span.on", { "aria-hidden": "true" }));
  const element = h("details.facet", {}, title, inner.element);
  const show = (condition, hits) => {
    inner.show(condition, hits);
    element.classList.toggle("set", condition !== undefined);
  };
  if (column.values?.length && column.values.length <= 8) element.open = innerWidth > 900;
  return { name: column.name, element, show };
}

function values(column, change) {
  const boxes = new Map();
  const chosen = () => column.values.map((one) => one.value).filter((value) => boxes.get(value).checked);
  const onchange = () => change(chosen().length ? chosen() : undefined);
  const counts = new Map();
  const rows = column.values.map(({ value, count: n }) => {
    const box = h("input", { type: "checkbox", onchange });
    const shown = h("span.n", {}, count(n));
    boxes.set(value, box);
    counts.set(value, (here) => { shown.textContent = here === null ? count(n) : `${count(here)} of ${count(n)}`; });
    return h("label.value", {}, box, h("bdi", {}, spell(value)), shown);
  });
  const element = h("div.values", { role: "group", "aria-label": column.name }, rows);
  return {
    element,
    show: (condition, hits) => {
      const here = condition === undefined && hits.length ? tally(hits, column.name) : null; // its own filter hides the others
      for (const [value, put] of counts) put(here && (here.get(value) ?? 0));
      const wanted = condition === undefined ? [] : Array.isArray(condition) ? condition : [condition];
      for (const [value, box] of boxes) box.checked = wanted.includes(value);
    },
  };
}

function tally(hits, name) {
  const counts = new Map();
  for (const { metadata } of hits) counts.set(metadata?.[name], (counts.get(metadata?.[name]) ?? 0) + 1);
  return counts;
}

const spell = (value) => (value === true ? "yes" : value === false ? "no" : String(value));

function range(column, change) {
  const wanted = () => {
    const condition = {};
    if (low.value !== "") condition[">="] = Number(low.value);
    if (high.value !== "") condition["<="] = Number(high.value);
    change(Object.keys(condition).length ? condition : undefined);
  };
  const field = (label, hint) => h("input", { type: "number", step: "any", "aria-label": `${column.name}, ${label}`, placeholder: short(hint), onchange: wanted });
  const low = field("at least", column.min), high = field("at most", column.max);
  return {
    element: h("div.range", { role: "group", "aria-label": column.name }, low, h("span", { "aria-hidden": "true" }, "to"), high),
    show: (condition) => {
      low.value = condition?.[">="] ?? "";
      high.value = condition?.["<="] ?? "";
    },
  };
}

const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : "");

function containing(column, change) {
  const input = h("input", {
    type: "search", "aria-label": `${column.name} contains`, placeholder: "contains…",
    onchange: () => change(input.value.trim() ? { like: `%${input.value.trim()}%` } : undefined),
  });
  return { element: h("div.range", {}, input), show: (condition) => { input.value = (condition?.like ?? "").replace(/^%|%$/g, ""); } };
}

/** Return one removable chip per condition, in words. */
export function conditionChips(where, ask) {
  return Object.entries(where).map(([name, condition]) => {
    const { [name]: _, ...others } = where;
    const label = `${name.replaceAll("_", " ")} ${conditionWords(condition)}`;
    return h("button.pill.filter", { type: "button", "aria-label": `Remove the filter ${label}`, onclick: () => ask({ where: others }) }, h("bdi", {}, label), icon("close"));
  });
}

/** Return a condition of a link in words: "is a or b", "at least 5 and at most 9". */
export function conditionWords(condition) {
  if (condition === null) return "is empty";
  if (Array.isArray(condition)) return condition.map(spell).join(" or ");
  if (typeof condition !== "object") return spell(condition);
  const words = { ">=": "at least", "<=": "at most", ">": "above", "<": "below", "!=": "not", "=": "", in: "one of" };
  return Object.entries(condition).map(([sign, value]) =>
    sign === "like" ? `contains “${String(value).replace(/^%|%$/g, "")}”` : `${words[sign] ?? sign} ${spell(value)}`.trim()).join(" and ");
}
