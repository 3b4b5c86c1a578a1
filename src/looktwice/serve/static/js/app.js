// Joins the parts: the link is the state, the state makes a request, the answer is drawn as it arrives.
import { Answer } from "./answer.js";
import { get, imageBlob, onMissingKey, post, stream } from "./api.js";
import { camera } from "./camera.js";
import { askForKey, shortcuts, themeButton } from "./controls.js";
import { crop } from "./crop.js";
import { $, announce, h, icon, toast } from "./dom.js";
import { hasMiddle } from "./fusion.js";
import { Grid } from "./grid.js";
import { HitView } from "./hit.js";
import { dataUri, full } from "./images.js";
import * as marks from "./marks.js";
import * as places from "./places.js";
import { QueryField } from "./query.js";
import { Refine } from "./refine.js";
import { Stages, spokenStage } from "./stages.js";
import { DEFAULTS, asks, decode, encode, queryKey, requestKey } from "./state.js";
import { Summary } from "./summary.js";
import { tablePage } from "./table.js";
import { count, plural } from "./text.js";
import { tileMaker } from "./tile.js";
import { welcome } from "./welcome.js";

const FIRST = 200; // hits asked for at first; more come as one scrolls
const CALM = 650; // milliseconds between two movements of the grid while scores arrive
const KEPT = 12; // answers kept for Back
const PAGE = 60; // items per request while browsing

class App {
  constructor() {
    this.state = decode(location.hash);
    this.answers = new Map();
    this.answer = null;
    this.order = [];
    this.items = [];
    const act = {
      ask: (patch) => this.ask(patch),
      adjust: (patch) => this.adjust(patch),
      open: (id) => this.open(id),
      address: (id) => `#${encode({ ...this.state, hit: id })}`,
      close: () => this.close(),
      step: (by) => this.stepHit(by),
      like: (id) => this.ask({ ...cleared, item: id }),
      crop: (id) => crop({ item: id }, this.state.table, (blob) => this.query.use(blob)),
      mark: (id, grade) => this.mark(id, grade),
      removed: (id) => this.removed(id),
      marks: () => marks.open(this.state, { use: () => this.ask({ like: this.state.yes, unlike: this.state.no }), changed: () => this.adjust({ yes: [], no: [] }) }),
      again: () => { this.answers.delete(requestKey(this.state)); this.answer = null; this.run(); },
    };
    const query = { ...act, crop: (source) => crop(source, this.state.table, (blob) => this.query.use(blob)), camera: () => camera((blob) => this.query.use(blob)) };
    this.query = new QueryField($("#search"), query);
    this.refine = new Refine($("#refine"), act);
    this.summary = new Summary($("#summary"), act);
    this.stages = new Stages($("#stages"), { stop: () => this.stop() });
    this.hitView = new HitView($("#hit"), act);
    this.grid = new Grid($("#grid"), {
      make: tileMaker(act, () => this.context()),
      onend: () => this.more(),
      onselect: (id) => { places.remember({ selected: id }); this.stages.highlight(id); },
    });
    this.#frame();
  }

  async start() {
    onMissingKey(askForKey);
    try {
      const served = await this.#loaded();
      this.tables = served.tables;
      if (!served.tables.length) return this.#welcome();
      this.#picker();
      await this.apply();
    } catch (error) {
      this.#failed(error);
    } finally {
      document.body.classList.remove("starting");
    }
  }

  /** Return what is served; wait while the server still loads its models. */
  async #loaded() {
    for (;;) {
      try {
        return await get("tables");
      } catch (error) {
        if (error.code !== "loading") throw error;
        document.body.classList.remove("starting");
        $("#lead").textContent = "The server is loading its models…";
        await new Promise((resolve) => setTimeout(resolve, 700));
      }
    }
  }

  /** Search with a changed query: a new entry of the history. */
  ask(patch) {
    const next = { ...this.state, ...patch, hit: null, view: "search" };
    if (queryKey(next) !== queryKey(this.state)) Object.assign(next, marks.kept(next));
    if (requestKey(next) === requestKey(this.state) && this.state.view === "search") { this.query.show(next); return; }
    this.#go(next, { push: true });
    if (scrollY > $("#columns").offsetTop) scrollTo({ top: 0, behavior: "instant" });
    this.grid.selected = null;
    this.apply();
  }

  /** Change what the page can do alone: λ, the least p, marks. */
  adjust(patch) {
    this.#go({ ...this.state, ...patch });
    this.draw({ move: true });
  }

  open(id) {
    places.leave();
    this.#go({ ...this.state, hit: id }, { push: true, opened: true });
    this.draw();
  }

  close() {
    if (places.place().opened) { history.back(); return; }
    this.#go({ ...this.state, hit: null });
    this.draw();
    this.#focusSelected();
  }

  stepHit(by) {
    const hit = this.grid.hits[this.grid.indexOf(this.state.hit) + by];
    if (!hit) return;
    this.#go({ ...this.state, hit: hit.id });
    this.grid.select(hit.id);
    this.grid.reveal(this.grid.indexOf(hit.id));
    this.draw();
    announce(`Hit ${this.grid.indexOf(hit.id) + 1} of ${this.grid.total}`);
  }

  mark(id, grade) {
    this.adjust(marks.toggled(this.state, id, grade));
    marks.keep(this.state);
    announce(this.state.yes.includes(id) ? `${id} marked right` : this.state.no.includes(id) ? `${id} marked wrong` : `${id} no longer marked`);
  }

  removed(id) {
    this.answer?.hits.delete(id);
    this.items = this.items.filter((one) => one.id !== id);
    this.close();
    this.draw();
  }

  /** Bring the page to its state: the table, the view, the answer. */
  async apply({ restore = places.place() } = {}) {
    this.#name(this.state);
    if (!this.state.yes.length && !this.state.no.length) Object.assign(this.state, marks.kept(this.state));
    this.query.show(this.state);
    try {
      await this.#loadTable();
    } catch (error) {
      this.#failed(error);
      return;
    }
    this.restoring = restore.y || restore.selected ? restore : null;
    if (this.state.view === "table") await this.#showTable();
    else this.run();
  }

  /** Answer the state's request: from memory, or by the server. */
  run() {
    const key = requestKey(this.state);
    this.query.show(this.state);
    if (!asks(this.state)) { this.#browse(key); return; }
    this.browsing = false;
    if (this.answer?.key === key) { this.draw(); return; }
    this.#halt();
    this.answer = this.answers.get(key) ?? null;
    if (this.answer) this.draw();
    else this.#search(key);
  }

  /** Stop the search that runs, and show what has come. */
  stop() {
    this.#halt();
    if (this.answer) this.draw();
  }

  #halt() {
    this.asking?.abort();
    this.answer?.stop();
    clearTimeout(this.moving);
    this.moving = 0;
  }

  /** Draw what is known. With `move`, tiles glide to their new places. */
  draw({ move = false } = {}) {
    const { state } = this;
    this.#mode(state.view === "table" ? "table" : this.browsing ? "home" : "results");
    this.refine.show(state);
    const order = this.browsing ? this.items.map((item, place) => ({ ...item, rank: place + 1 })) : this.answer?.order(state.weight) ?? [];
    this.order = order;
    this.#scale(order);
    const shown = state.least > 0 && !this.browsing ? order.filter((hit) => hit.p !== null && hit.p >= state.least) : order;
    this.grid.foot = this.browsing ? 26 : 58;
    this.grid.set(shown, { move, total: this.browsing ? this.total : shown.length });
    this.stages.show(this.browsing ? null : this.answer, order, { onlyFirst: !this.about?.mllm || !state.depth });
    this.summary.show({ ...this, shown });
    this.#showHit(shown);
    this.#restore();
    document.title = this.browsing ? "looktwice" : `${state.text.trim() || "image"} · looktwice`;
  }

  /** Load further hits, or further items while browsing. */
  async more() {
    if (this.loading || this.state.view === "table") return;
    if (this.browsing) { await this.#moreItems(); return; }
    const { answer } = this;
    if (!answer || answer.exhausted || !["done", "stopped"].includes(answer.state) || this.state.least > 0) return;
    const most = Math.min(this.about.limits?.k ?? 10_000, this.about.items);
    if (answer.hits.size >= most || answer.hits.size < FIRST) { answer.exhausted = true; return; }
    await this.#busy(async () => {
      const { hits } = await post("search", await this.#request({ k: Math.min(most, answer.hits.size * 3), rerank: false, stream: false }));
      if (!answer.more(hits)) answer.exhausted = true;
      if (answer === this.answer) this.draw();
    });
  }

  context() {
    const { yes, no, table } = this.state;
    if (this.markedFor !== yes || this.markedNo !== no) {
      [this.markedFor, this.markedNo] = [yes, no];
      this.markMap = Object.fromEntries([...yes.map((id) => [id, 1]), ...no.map((id) => [id, 0])]);
    }
    return { table, marks: this.markMap, scale: this.scale, browsing: this.browsing };
  }

  async #request(more = {}) {
    const { table, like, unlike, depth, where, distinct, weight } = this.state;
    const full = Object.keys(where).length > 0;
    return {
      table, query: await this.#query(), ...(like.length && { like }), ...(unlike.length && { unlike }), ...(full && { where }), ...(distinct && { distinct }),
      k: Math.min(Math.max(FIRST, depth), this.about.limits?.k ?? FIRST), shortlist: Math.max(1, depth),
      rerank: depth > 0 && Boolean(this.about.mllm), stream: true, ...this.#looks(depth, weight), ...more,
    };
  }

  /** Return how the looks are joined; where tokens are stored, a middle look orders what the second one reads. */
  #looks(depth, weight) {
    if (!this.about.maxsim || !depth) return { fusion: weight };
    return { maxsim: Math.max(FIRST, depth), fusion: `coarse=0,maxsim=${weight},p=${1 - weight}` };
  }

  /** Return the query of a request. A stored item that has words beside it is sent as an image. */
  async #query() {
    const { table, text, item, image } = this.state;
    if (item && text.trim()) return { text: text.trim(), image: await dataUri(await imageBlob(table, item)) };
    return { ...(text.trim() && { text: text.trim() }), ...(item && { item }), ...(image && { image: full(image).uri }) };
  }

  async #search(key) {
    const answer = new Answer(key, this.state.depth);
    this.answer = answer;
    const asking = new AbortController();
    this.asking = asking;
    this.draw();
    try {
      await stream("search", await this.#request(), (name, data) => answer === this.answer && this.#take(answer, name, data), asking.signal);
      if (answer.state === "looking" || answer.state === "waiting") answer.fail("The answer ended early; search again.");
    } catch (error) {
      if (error.name === "AbortError") return;
      answer.fail(error.message);
    }
    if (answer !== this.answer) return;
    this.#keep(answer);
    this.#moveSoon(0);
    announce(spokenStage(answer));
  }

  #take(answer, name, data) {
    answer.take(name, data);
    if (name === "first") { this.draw({ move: true }); announce(spokenStage(answer)); }
    else if (name === "scores") {
      this.grid.refresh(data.scores.map(({ id }) => answer.hits.get(id)));
      this.#moveSoon(CALM);
    } else this.#moveSoon(0);
  }

  #moveSoon(after) {
    if (this.moving && after) return;
    clearTimeout(this.moving);
    this.moving = setTimeout(() => { this.moving = 0; this.draw({ move: true }); }, after);
  }

  #keep(answer) {
    if (answer.state !== "done") return;
    this.answers.set(answer.key, answer);
    if (this.answers.size > KEPT) this.answers.delete(this.answers.keys().next().value);
  }

  #browse(key) {
    this.#halt();
    this.answer = null;
    this.browsing = true;
    if (this.browsed !== key) { this.browsed = key; this.items = []; this.total = this.about.items; this.ended = false; }
    this.draw();
    if (!this.items.length) this.#moreItems();
  }

  async #moreItems() {
    if (this.ended || this.loading) return;
    await this.#busy(async () => {
      const { table } = this.state;
      const page = await get(`tables/${encodeURIComponent(table)}/items?offset=${this.items.length}&limit=${PAGE}`).catch(() => ({ items: [] }));
      if (!this.browsing || table !== this.state.table) return;
      this.items.push(...page.items);
      this.total = page.total ?? this.items.length;
      this.ended = page.items.length < PAGE;
      this.draw();
    });
  }

  async #busy(work) {
    this.loading = true;
    try { await work(); } catch (error) { toast(error.message, { bad: true }); } finally { this.loading = false; }
  }

  async #loadTable() {
    if (this.about?.name === this.state.table) return;
    const path = `tables/${encodeURIComponent(this.state.table)}`;
    const [about, facets] = await Promise.all([get(path), get(`${path}/facets`).catch(() => ({ columns: [] }))]);
    this.about = about;
    this.facets = facets.columns;
    this.refine.prepare(about, facets.columns);
    $("#tables").value = about.name;
    $("#lead").textContent = `${plural(about.items, "item")} in ${about.name}. Start with words, with an image of yours, or with any of these.`;
  }

  async #showTable() {
    this.#mode("table");
    document.title = `${this.about.name} · looktwice`;
    await tablePage($("#table-page"), this.about, this.facets, () => this.#changed());
    this.#restore();
  }

  /** After a write: what is remembered of the table is out of date. */
  async #changed() {
    this.answers.clear();
    this.browsed = null;
    this.answer = null;
    const before = this.about;
    this.about = null;
    await this.#loadTable().catch(() => { this.about = before; });
  }

  #showHit(shown) {
    const { hit: id } = this.state;
    if (!id) { this.hitView.close(); return; }
    const index = this.grid.indexOf(id);
    const hit = this.grid.hits[index] ?? this.answer?.hits.get(id);
    if (!hit) return; // not there yet: the first look will bring it
    this.grid.select(id);
    this.hitView.show(hit, { state: this.state, about: this.about, browsing: this.browsing, position: index + 1, total: shown.length, middle: hasMiddle(this.order), requestQuery: () => this.#query() });
  }

  #restore() {
    if (!this.restoring || !this.grid.hits.length) return;
    const { y = 0, selected = null } = this.restoring;
    if (selected !== null && this.grid.indexOf(selected) >= 0) this.grid.selected = selected;
    scrollTo({ top: y, behavior: "instant" });
    if (Math.abs(scrollY - y) > 2 && this.answer?.state === "looking") return; // the list is still too short
    this.restoring = null;
    this.#focusSelected();
  }

  #focusSelected() {
    const index = this.grid.here();
    if (index >= 0 && !this.state.hit) this.grid.focus(index, { scroll: false });
  }

  #scale(order) {
    let low = Infinity, high = -Infinity;
    for (const { coarse } of order) if (coarse !== undefined) { low = Math.min(low, coarse); high = Math.max(high, coarse); }
    this.scale = (coarse) => (high > low ? 0.04 + 0.96 * ((coarse - low) / (high - low)) : 1);
  }

  #go(state, how) {
    if (how?.push) places.leave();
    this.state = state;
    places.write(encode(state), how);
  }

  #mode(view) {
    document.body.dataset.view = view;
    $("#table-page").hidden = view !== "table";
    $("#columns").hidden = view === "table";
    $("#ask").hidden = view === "table";
    if (view === "table") $("#stages").hidden = true;
    $("#refine").hidden = view !== "results";
    for (const [id, current] of [["to-search", view !== "table"], ["to-table", view === "table"]]) {
      if (current) $(`#${id}`).setAttribute("aria-current", "page");
      else $(`#${id}`).removeAttribute("aria-current");
    }
  }

  #frame() {
    themeButton($("#theme"));
    shortcuts(this.query, this.grid);
    places.followScroll();
    const link = (id, patch) => $(`#${id}`).addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey || !this.tables?.length) return;
      event.preventDefault();
      this.#go({ ...this.state, hit: null, ...patch }, { push: true });
      this.apply();
    });
    link("home", { ...structuredClone(DEFAULTS), table: this.state.table });
    link("to-search", { view: "search" });
    link("to-table", { view: "table" });
    $("#skip").addEventListener("click", (event) => { event.preventDefault(); $("#results").focus(); });
    addEventListener("popstate", () => this.#popped());
  }

  /** Name the table of a state: a link may leave it out, or name one that is not served. */
  #name(state) {
    if (this.tables.some(({ name }) => name === state.table)) return;
    state.table = (this.tables.find((one) => one.default) ?? this.tables[0]).name;
  }

  /** Follow Back and Forward. Marks belong to the query, not to the entry; a closed hit stays the selected one. */
  #popped() {
    const before = this.state;
    this.state = decode(location.hash);
    this.#name(this.state);
    const mine = marks.kept(this.state);
    if (mine.yes.length + mine.no.length || queryKey(before) === queryKey(this.state)) Object.assign(this.state, mine);
    places.write(encode(this.state));
    const closed = before.hit && !this.state.hit && requestKey(before) === requestKey(this.state);
    this.apply({ restore: closed ? { ...places.place(), selected: before.hit } : places.place() });
  }

  #picker() {
    const select = $("#tables");
    select.replaceChildren(...this.tables.map(({ name, items }) => h("option", { value: name }, `${name} · ${count(items)}`)));
    select.hidden = this.tables.length < 2;
    select.addEventListener("change", () => this.ask({ ...cleared, where: {}, table: select.value }));
  }

  #welcome() {
    document.body.dataset.view = "welcome";
    $("#results").replaceChildren(welcome());
    $("#search").hidden = true;
    $("#to-table").hidden = true;
  }

  #failed(error) {
    document.body.dataset.view = "welcome";
    $("#results").replaceChildren(h("div.problem", { role: "alert" }, h("p", {}, error.message), h("button.pill", { type: "button", onclick: () => location.reload() }, icon("again"), "Try again")));
  }
}

const cleared = { text: "", item: null, image: null, like: [], unlike: [] };

new App().start();
