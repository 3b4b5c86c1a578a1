// A hit opened: query and candidate side by side, what mattered laid over, and everything that is known about it.
import { at, get, item, originalPath, post, previewPath, remove, show } from "./api.js";
import { quoted, searchCommand } from "./commands.js";
import { $, copy, h, icon, iconButton, toast } from "./dom.js";
import { calibrated, fused, parts, ruleOf } from "./fusion.js";
import { heatmap, spoken } from "./heatmap.js";
import { full } from "./images.js";
import { thumbnail } from "./tile.js";
import { count, fixed, hasImage, movement, offMassWords, percent } from "./text.js";

export class HitView {
  /** `act` has close(), step(±1), like(id), crop(id), mark(id, grade), open(id) and removed(id). */
  constructor(dialog, act) {
    Object.assign(this, { dialog, act, shown: null, map: true });
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); act.close(); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) act.close(); });
    dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, select, textarea")) return;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); act.step(step); }
    });
  }

  /** Show a hit; `context` has state, about, position, total and the open hit's marks. */
  show(hit, context) {
    const again = this.shown === hit.id && this.dialog.open;
    this.context = context;
    this.hit = hit;
    if (again) { this.#refresh(); return; }
    this.shown = hit.id;
    this.asked?.abort();
    this.#build();
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.#load();
  }

  close() {
    this.asked?.abort();
    this.shown = null;
    if (this.dialog.open) this.dialog.close();
  }

  #build() {
    const { state, about, position, total } = this.context, { hit } = this;
    this.title = h("h2", {}, h("bdi", {}, hit.id));
    this.heat = h("div.heat-slot");
    this.candidate = h("figure.candidate", {}, h("div.canvas", {}, bigImage(state.table, hit), this.heat), h("figcaption", {}, "Candidate"));
    this.verdict = h("section.verdict", { "aria-live": "polite" });
    this.reading = h("section.reading", {}, h("p.hint", {}, asksModel(this.context, hit) ? "Asking the model again, part by part…" : ""));
    this.metadata = h("section.metadata");
    this.marks = h("div.group");
    const step = (by, name, label) => iconButton(name, label, () => this.act.step(by), { disabled: by < 0 ? position <= 1 : position >= total });
    this.dialog.setAttribute("aria-label", `Hit ${hit.id}`);
    this.dialog.replaceChildren(
      h("header", {}, step(-1, "previous", "Previous hit"), h("span.position", {}, `${count(position)} of ${count(total)}`), step(1, "next", "Next hit"), this.title, iconButton("close", "Close", () => this.act.close())),
      h("div.opened", {},
        h("div.pair", {}, queryFigure(state), this.candidate, this.#overlayControls()),
        h("div.facts", {}, this.verdict, this.reading, this.metadata, this.#duplicates(), this.#actions(about)),
      ),
    );
    this.#refresh();
    this.#showMetadata({ metadata: hit.metadata ?? {}, text: hit.text });
  }

  #refresh() {
    this.verdict.replaceChildren(...verdict(this.hit, this.context));
    const { state } = this.context;
    const button = (grade, name, label) => h("button.pill", {
      type: "button", "aria-pressed": String(state[grade ? "yes" : "no"].includes(this.hit.id)), onclick: () => this.act.mark(this.hit.id, grade),
    }, icon(name), label);
    const at = this.marks.contains(document.activeElement) ? [...this.marks.children].indexOf(document.activeElement) : -1;
    this.marks.replaceChildren(button(1, "right", "Right"), button(0, "wrong", "Wrong"));
    this.marks.children[at]?.focus();
  }

  #overlayControls() {
    const box = h("input", { type: "checkbox", checked: this.map, onchange: () => { this.map = box.checked; this.heat.hidden = !this.map; } });
    this.legend = h("p.legend", { hidden: true }, h("label", {}, box, " What mattered"), h("span.scale", { "aria-hidden": "true" }), h("span.hint"));
    return this.legend;
  }

  #actions(about) {
    const { hit } = this, { state } = this.context;
    const pill = (name, label, onclick, props = {}) => h("button.pill", { type: "button", onclick, ...props }, icon(name), label);
    const original = hasImage(hit) ? h("a.pill", { href: at(originalPath(state.table, hit.id)), target: "_blank", rel: "noopener" }, icon("open"), "Open the original") : null;
    this.pathButton = pill("copy", "Copy path", () => copy(this.known?.path, "the path"), { hidden: true });
    return h("section.actions", {},
      this.marks,
      h("div.group", {}, pill("like", "More like this", () => this.act.like(hit.id)), hasImage(hit) && pill("crop", "Search a region", () => this.act.crop(hit.id)), original),
      h("div.group", {},
        pill("copy", "Copy id", () => copy(hit.id, "the id")),
        this.pathButton,
        pill("command", "Copy command", () => copy(this.#command(about), "the command line")),
        about.writable && pill("trash", "Delete", () => this.#delete(), { className: "pill danger" }),
      ),
    );
  }

  #command(about) {
    const { state, queryPath } = this.context;
    return state.item || state.image || state.text.trim() ? searchCommand(about, state, queryPath?.()) : `looktwice search ${quoted(about.path ?? about.name)} ${quoted(this.known?.path ?? this.hit.id)}`;
  }

  async #load() {
    const { hit } = this, { state } = this.context;
    this.asked = new AbortController();
    const { signal } = this.asked;
    get(item(state.table, hit.id), { signal }).then((known) => {
      if (this.shown !== hit.id) return;
      this.known = known;
      this.pathButton.hidden = !known.path;
      this.#showMetadata(known);
    }, () => {});
    if (!asksModel(this.context, hit)) { this.reading.replaceChildren(h("p.hint", {}, whyNoReading(this.context))); return; }
    try {
      const query = this.context.requestQuery();
      const told = await post("explain", { table: state.table, query, candidate: { item: hit.id } }, { signal });
      if (this.shown === hit.id) this.#explain(told);
    } catch (error) {
      if (error.name !== "AbortError" && this.shown === hit.id) this.reading.replaceChildren(h("p.hint", {}, `No closer look: ${error.message}`));
    }
  }

  #explain(told) {
    this.reading.replaceChildren(...reading(told));
    if (!told.map) { this.reading.append(h("p.hint", {}, "There is no map of this candidate.")); return; }
    this.heat.replaceChildren(heatmap(told.map));
    this.heat.hidden = !this.map;
    this.legend.hidden = false;
    this.legend.lastChild.textContent = spoken(told.map);
  }

  #showMetadata({ metadata, text, width, height, bytes: size, uri_kind: kind }) {
    const entries = Object.entries(metadata ?? {}).filter(([, value]) => value !== null && value !== "");
    if (width) entries.push(["size", `${width} × ${height}`]);
    if (kind === "memory") entries.push(["stored", "in the table only"]);
    this.metadata.replaceChildren(...[
      text && hasImage(this.hit) ? h("blockquote", {}, h("bdi", {}, text)) : null,
      entries.length ? h("dl", {}, entries.map(([name, value]) => h("div", {}, h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, h("bdi", {}, spell(value)))))) : null,
    ].filter(Boolean));
  }

  #duplicates() {
    const { folded } = this.hit, { state } = this.context;
    if (!folded?.length) return null;
    const tiles = folded.map((id) => h("button.plain", { type: "button", title: id, "aria-label": `More like ${id}`, onclick: () => this.act.like(id) }, thumbnail(state.table, { id, uri_kind: this.hit.uri_kind }, 160)));
    return h("section", {}, h("h3", {}, "Near-duplicates folded into this hit"), h("div.strip", {}, tiles));
  }

  async #delete() {
    const { hit } = this;
    if (!confirm(`Delete ${hit.id} from the table? Its file stays where it is.`)) return;
    try {
      await remove(item(this.context.state.table, hit.id));
      toast(`Deleted ${hit.id} from the table.`);
      this.act.removed(hit.id);
    } catch (error) {
      toast(error.message, { bad: true });
    }
  }
}

const spell = (value) => (value === true ? "yes" : value === false ? "no" : typeof value === "object" ? JSON.stringify(value) : String(value));
const asksModel = ({ about, state, browsing }, hit) => Boolean(about.mllm) && !browsing && Boolean(state.text.trim() || state.image || state.item) && hit.id !== state.item;

function whyNoReading({ about, browsing, state }) {
  if (browsing) return "";
  if (!about.mllm) return "This server runs without a second look; start it with --mllm NAME for one.";
  return state.like.length ? "Examples have no question to ask the model again." : "This is the query itself.";
}

function bigImage(table, hit) {
  if (!hasImage(hit)) return h("blockquote.card", {}, h("bdi", {}, hit.text || hit.id));
  const image = h("img", { alt: hit.text || hit.id });
  show(image, previewPath(table, hit.id, 1280, hit.preview));
  return image;
}

function queryFigure(state) {
  const parts = [];
  if (state.item) {
    const image = h("img", { alt: `Query: ${state.item}` });
    show(image, previewPath(state.table, state.item, 1280));
    parts.push(image);
  }
  if (state.image) parts.push(h("img", { alt: "Query image", src: full(state.image).shown ?? "" }));
  if (state.text.trim()) parts.push(h("blockquote", {}, h("bdi", {}, state.text.trim())));
  if (!parts.length) return null;
  return h("figure.query", {}, h("div.canvas", {}, parts), h("figcaption", {}, "Query"));
}

/** Return the headline of a hit: p, what it is made of, and how it moved. */
function verdict(hit, { state, about, browsing, middle }) {
  if (browsing) return [];
  const moved = movement(hit);
  const way = h("p", {}, `First look: place ${count(hit.coarse_rank)}. Now: place ${count(hit.rank)}`, moved.places ? h(`span.${moved.places > 0 ? "up" : "down"}`, {}, ` ${moved.shown}`) : null);
  if (typeof hit.p !== "number") return [h("p.big.none", {}, "not looked at twice"), h("p", {}, `coarse ${fixed(hit.coarse)}`), way];
  const chance = hit.calibrated ?? calibrated(about.calibration?.curve, hit.p);
  const rule = ruleOf(state, about);
  return [
    h("p.big", {}, h("small", {}, "p"), fixed(hit.p)),
    chance === null ? null : h("p", {}, `Calibrated: right with a chance of ${percent(chance)}.`),
    h("p.sum", {}, h("span", {}, `score ${fixed(fused(hit, rule, middle))} =`), parts(hit, rule, middle).map(([share, value, name], place) =>
      h("span", {}, `${place ? "+ " : ""}${fixed(share, 2)} × ${fixed(value)} ${name}`))),
    way,
  ].filter(Boolean);
}

const MEANING = { 0: "no match", 1: "match" }; // of a label's value

/** Return one label with a bar of its probability. */
function bar(name, meaning, probability) {
  const filled = h("i.second");
  filled.style.width = `${(100 * probability).toFixed(1)}%`;
  const track = h("span.track.thick", { "aria-hidden": "true" }, filled);
  return h("div.label", {}, h("dt", {}, h("bdi", {}, name), meaning ? h("span.hint", {}, ` ${meaning}`) : null), h("dd", {}, track, h("span", {}, percent(probability))));
}

/** Return what the model answered: the labels' probabilities and, in words, what lay outside them. */
function reading(told) {
  const bars = (told.labels ?? []).map(({ name, value, probability, share: amongLabels }) => bar(name, MEANING[value], probability ?? amongLabels));
  return [
    h("h3", {}, "What the model answered"),
    bars.length ? h("dl.labels", {}, bars) : null,
    h("p", {}, offMassWords(told.off_mass)),
  ].filter(Boolean);
}
