// Joins the parts: the link is the state, the state makes a request, the answer is drawn as it arrives.
import { onMissingKey } from "./api.js";
import { Browse } from "./browse.js";
import { camera } from "./camera.js";
import { askForKey, shortcuts, themeButton } from "./controls.js";
import { crop } from "./crop.js";
import { $, announce, toast } from "./dom.js";
import { failed, greet, headLinks, tableChoice, view } from "./frame.js";
import { coarseScale, hasMiddle, ruleOf } from "./fusion.js";
import { Grid } from "./grid.js";
import { HitView } from "./hit.js";
import * as marks from "./marks.js";
import { Pace } from "./pace.js";
import * as places from "./places.js";
import { QueryField } from "./query.js";
import { Refine } from "./refine.js";
import { queryOf } from "./request.js";
import { Searches } from "./searches.js";
import { Served } from "./served.js";
import { Stages, spokenStage } from "./stages.js";
import { DEFAULTS, asks, decode, encode, queryKey, requestKey } from "./state.js";
import { Summary } from "./summary.js";
import { tablePage } from "./table.js";
import { plural } from "./text.js";
import { tileMaker } from "./tile.js";

const CALM = 650; // milliseconds between two movements of the grid while scores arrive
const CLEARED = { text: "", item: null, image: null, like: [], unlike: [] };

class App {
  constructor() {
    this.state = decode(location.hash);
    this.served = new Served();
    this.searches = new Searches((name, data) => this.#heard(name, data));
    this.browse = new Browse();
    this.moves = new Pace(() => this.draw({ move: true }));
    this.order = [];
    const act = this.#actions();
    this.query = new QueryField($("#search"), { ...act, crop: (source) => this.#crop(source), camera: () => camera((blob) => this.query.use(blob)) });
    this.refine = new Refine($("#refine"), act);
    this.summary = new Summary($("#summary"), act);
    this.stages = new Stages($("#stages"), { stop: () => this.stop() });
    this.hitView = new HitView($("#hit"), act);
    this.grid = new Grid($("#grid"), {
      make: tileMaker(act, () => this.#context()),
      onend: () => this.more(),
      onselect: (id) => { places.remember({ selected: id }); this.stages.highlight(id); },
    });
    themeButton($("#theme"));
    shortcuts(this.query, this.grid);
    places.followScroll();
  }

  async start() {
    onMissingKey(askForKey);
    try {
      await this.served.load(() => {
        document.body.classList.remove("starting");
        $("#lead").textContent = "The server is loading its models…";
      });
      if (this.served.tables.length) await this.#begin();
      else greet();
    } catch (error) {
      failed(error);
    } finally {
      document.body.classList.remove("starting");
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
    this.#go({ ...this.state, hit: id }, { push: true, opened: true });
    this.draw();
  }

  close() {
    if (places.place().opened) { history.back(); return; }
    this.#go({ ...this.state, hit: null });
    this.draw();
    this.#focusSelected();
  }

  /** Go to the hit before or after the open one. */
  stepHit(by) {
    const index = this.grid.indexOf(this.state.hit) + by;
    const hit = this.grid.hits[index];
    if (!hit) return;
    this.#go({ ...this.state, hit: hit.id });
    this.grid.select(hit.id);
    this.grid.reveal(index);
    this.draw();
    announce(`Hit ${index + 1} of ${this.grid.total}`);
  }

  /** Mark a hit; with `range`, all hits from the last marked one to this one. */
  mark(id, grade, range = false) {
    const ids = this.grid.between(range ? this.lastMarked : id, id);
    this.adjust(ids.length > 1 ? marks.graded(this.state, ids, grade) : marks.toggled(this.state, id, grade));
    this.lastMarked = id;
    marks.keep(this.state);
    announce(marks.said(this.state, ids));
  }

  /** Bring the page to its state: the table, the view, the answer. */
  async apply({ restore = places.place() } = {}) {
    this.state.table = this.served.named(this.state.table);
    if (!this.state.yes.length && !this.state.no.length) Object.assign(this.state, marks.kept(this.state));
    this.query.show(this.state);
    try {
      await this.#loadTable();
    } catch (error) {
      failed(error);
      return;
    }
    this.restoring = restore.y || restore.selected ? restore : null;
    if (this.state.view === "table") await this.#showTable();
    else this.#run();
  }

  /** Stop the search that runs, and show what has come. */
  stop() {
    this.moves.stop();
    this.searches.halt();
    this.draw();
  }

  /** Draw what is known. With `move`, tiles glide to their new places. */
  draw({ move = false } = {}) {
    const { state, browsing, browse, searches: { answer } } = this;
    view(state.view === "table" ? "table" : browsing ? "home" : "results");
    this.order = browsing ? browse.hits() : answer?.order(ruleOf(state, this.served.about)) ?? [];
    this.refine.show(state, browsing ? [] : this.order);
    this.scale = coarseScale(this.order);
    this.marked = marks.grades(state);
    const shown = state.least > 0 && !browsing ? this.order.filter((hit) => hit.p !== null && hit.p >= state.least) : this.order;
    const waiting = !browsing && answer?.state === "waiting";
    this.grid.root.classList.toggle("stale", waiting);
    if (!waiting) { // what is shown stays until there is something to show in its place
      this.grid.foot = browsing ? 26 : 58;
      this.grid.set(shown, { move, total: browsing ? browse.total : shown.length });
    }
    this.stages.show(browsing ? null : answer, this.order, { onlyFirst: !this.served.about.mllm || !state.depth });
    this.summary.show({ state, answer, browsing, order: this.order, shown, total: browse.total });
    this.#showHit(shown);
    this.#restore();
    document.title = browsing ? "looktwice" : `${state.text.trim() || "image"} · looktwice`;
  }

  /** Load further hits, or further items while browsing. */
  async more() {
    if (this.loading || this.state.view === "table" || (!this.browsing && this.state.least > 0)) return;
    this.loading = true;
    try {
      const came = this.browsing ? this.browse.more() : this.searches.more(this.state, this.served.about);
      if (await came) this.draw();
    } catch (error) {
      toast(error.message, { bad: true });
    } finally {
      this.loading = false;
    }
  }

  #actions() {
    return {
      ask: (patch) => this.ask(patch),
      adjust: (patch) => this.adjust(patch),
      open: (id) => this.open(id),
      address: (id) => `#${encode({ ...this.state, hit: id })}`,
      close: () => this.close(),
      step: (by) => this.stepHit(by),
      like: (id) => this.ask({ ...CLEARED, item: id }),
      crop: (id) => this.#crop({ item: id }),
      mark: (id, grade, range) => this.mark(id, grade, range),
      removed: (id) => this.#removed(id),
      marks: () => this.#showMarks(),
      again: () => { this.searches.forget(); this.#run(); },
    };
  }

  #crop(source) {
    crop(source, this.state.table, (blob) => this.query.use(blob));
  }

  #showMarks() {
    const use = () => this.ask({ like: this.state.yes, unlike: this.state.no });
    marks.open(this.state, { use, changed: () => this.adjust({ yes: [], no: [] }) });
  }

  async #begin() {
    tableChoice(this.served.tables, (table) => this.ask({ ...CLEARED, where: {}, table }));
    const go = (patch) => {
      this.#go({ ...this.state, hit: null, ...patch }, { push: true });
      this.apply();
    };
    const { table: _, ...start } = DEFAULTS;
    headLinks(go, { home: start, "to-search": { view: "search" }, "to-table": { view: "table" } });
    addEventListener("popstate", () => this.#popped());
    await this.apply();
  }

  /** Answer the state's request: with the table's items, from memory, or by the server. */
  #run() {
    this.query.show(this.state);
    this.moves.stop();
    this.browsing = !asks(this.state);
    if (this.browsing) {
      this.searches.leave();
      this.browse.begin(this.served.about);
    } else this.searches.take(this.state, this.served.about);
    this.draw();
    if (this.browsing && !this.browse.items.length) this.more();
  }

  #heard(name, data) {
    const { answer } = this.searches;
    if (name === "first") this.draw({ move: true });
    else if (name === "scores") {
      this.grid.refresh(data.scores.map(({ id }) => answer.hits.get(id)));
      this.stages.tell(answer, this.order);
      this.moves.soon(CALM);
    } else this.moves.soon(0);
    if (name === "first" || name === "over") announce(spokenStage(answer));
  }

  #context() {
    return { table: this.state.table, marks: this.marked, scale: this.scale, browsing: this.browsing };
  }

  async #loadTable() {
    if (await this.served.open(this.state.table)) this.#prepare();
  }

  #prepare() {
    const { about, facets } = this.served;
    this.refine.prepare(about, facets);
    $("#tables").value = about.name;
    $("#lead").textContent = `${plural(about.items, "item")} in ${about.name}. Start with words, with an image of yours, or with any of these.`;
  }

  async #showTable() {
    view("table");
    const { about, facets } = this.served;
    document.title = `${about.name} · looktwice`;
    await tablePage($("#table-page"), about, facets, () => this.#changed());
    this.#restore();
  }

  /** After a write: what is remembered of the table is out of date. */
  async #changed() {
    this.searches.forget({ all: true });
    this.browse.clear();
    await this.served.reopen();
    this.#prepare();
  }

  #removed(id) {
    this.searches.answer?.hits.delete(id);
    this.browse.items = this.browse.items.filter((one) => one.id !== id);
    this.close();
    this.draw();
  }

  #showHit(shown) {
    const { state, browsing } = this;
    if (!state.hit) { this.hitView.close(); return; }
    const index = this.grid.indexOf(state.hit);
    const hit = this.grid.hits[index] ?? this.searches.answer?.hits.get(state.hit);
    if (!hit) return; // not there yet: the first look will bring it
    this.grid.select(state.hit);
    const where = { position: index + 1, total: shown.length, middle: hasMiddle(this.order) };
    this.hitView.show(hit, { state, about: this.served.about, browsing, ...where, requestQuery: () => queryOf(state) });
  }

  #restore() {
    if (!this.restoring || !this.grid.hits.length) return;
    const { y = 0, selected = null } = this.restoring;
    if (selected !== null && this.grid.indexOf(selected) >= 0) this.grid.selected = selected;
    scrollTo({ top: y, behavior: "instant" });
    if (Math.abs(scrollY - y) > 2 && this.searches.answer?.state === "looking") return; // the list is still too short
    this.restoring = null;
    this.#focusSelected();
  }

  #focusSelected() {
    const index = this.grid.here();
    if (index >= 0 && !this.state.hit) this.grid.focus(index, { scroll: false });
  }

  #go(state, how) {
    if (how?.push) places.leave();
    this.state = state;
    places.write(encode(state), how);
  }

  /** Follow Back and Forward. Marks belong to the query, not to the entry; a closed hit stays the selected one. */
  #popped() {
    const before = this.state;
    this.state = decode(location.hash);
    this.state.table = this.served.named(this.state.table);
    const mine = marks.kept(this.state);
    if (mine.yes.length + mine.no.length || queryKey(before) === queryKey(this.state)) Object.assign(this.state, mine);
    places.write(encode(this.state));
    const closed = before.hit && !this.state.hit && requestKey(before) === requestKey(this.state);
    this.apply({ restore: closed ? { ...places.place(), selected: before.hit } : places.place() });
  }
}

new App().start();
