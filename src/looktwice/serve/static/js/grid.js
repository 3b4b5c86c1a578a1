// A grid of tiles of which only those near the window exist, so that 10,000 hits cost as little as 50. Every tile lies
// at its own place; when the order changes it moves there, unless the system asks for less motion.

const GAP = 14;
const SLOWEST = 900; // milliseconds after which a movement is over
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Grid {
  /**
   * `root` is the list. `make(hit, act)` returns a tile with `update(hit, position, total)`; `onend` is called when one
   * scrolls near the end.
   */
  constructor(root, { make, onend = () => {}, onselect = () => {} }) {
    Object.assign(this, { root, make, onend, onselect });
    this.hits = [];
    this.places = new Map(); // id → index
    this.tiles = new Map(); // id → tile
    this.selected = null;
    this.total = 0;
    this.foot = 58; // pixels below the image of a tile
    new ResizeObserver(() => this.#measure()).observe(root);
    addEventListener("scroll", () => this.#draw(), { passive: true });
    addEventListener("resize", () => this.#draw(), { passive: true });
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusin", (event) => this.#focused(event));
  }

  /** Show these hits in this order. With `move`, tiles glide from their old places to the new ones. */
  set(hits, { move = false, total = hits.length } = {}) {
    const old = this.places;
    this.hits = hits;
    this.total = total;
    this.places = new Map(hits.map((hit, index) => [hit.id, index]));
    if (!this.places.has(this.selected)) this.selected = null;
    this.#measure(move && !still.matches && !document.hidden ? old : null);
  }

  /** Redraw tiles whose hits changed in place, without moving any. */
  refresh(hits) {
    for (const hit of hits) {
      const index = this.places.get(hit.id);
      if (index !== undefined) this.hits[index] = { ...hit, rank: this.hits[index].rank };
      this.tiles.get(hit.id)?.update(this.hits[index], index + 1, this.total);
    }
  }

  /** Move the keyboard's focus to a hit, which is scrolled into the window. */
  focus(index, { scroll = true } = {}) {
    const hit = this.hits[index];
    if (!hit) return;
    this.select(hit.id);
    if (scroll) this.reveal(index);
    this.#draw();
    this.tiles.get(hit.id)?.button.focus({ preventScroll: true });
  }

  /** Remember a hit as the selected one: it keeps the only tab stop of the grid. */
  select(id) {
    const before = this.selected;
    this.selected = id;
    for (const one of [before, id]) this.tiles.get(one)?.stop(one === this.#stop());
    this.onselect(id);
  }

  reveal(index) {
    const top = this.root.getBoundingClientRect().top + this.#top(index);
    const head = Number.parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
    if (top < head) scrollBy({ top: top - head, behavior: "instant" });
    else if (top + this.height > innerHeight - GAP) scrollBy({ top: top + this.height - innerHeight + GAP, behavior: "instant" });
  }

  indexOf(id) {
    return this.places.get(id) ?? -1;
  }

  /** Return the ids of the hits from one to another, both included; the other alone if the first is not shown. */
  between(one, other) {
    const [from, to] = [this.indexOf(one), this.indexOf(other)];
    if (from < 0 || to < 0) return [other];
    return this.hits.slice(Math.min(from, to), Math.max(from, to) + 1).map(({ id }) => id);
  }

  /** Return the index of the hit that arrows start from: the selected one, else the first in the window. */
  here() {
    return this.selected === null ? -1 : this.indexOf(this.selected);
  }

  #measure(old = null) {
    const width = this.root.clientWidth;
    if (!width) return;
    const least = width < 520 ? 140 : width < 900 ? 150 : 176;
    this.columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
    this.side = (width - GAP * (this.columns - 1)) / this.columns;
    this.root.style.setProperty("--side", `${this.side}px`);
    this.height = this.side + this.foot;
    const rows = Math.ceil(this.hits.length / this.columns);
    this.root.style.height = `${rows ? rows * (this.height + GAP) - GAP : 0}px`;
    this.#draw(old, true);
  }

  #top = (index) => Math.floor(index / this.columns) * (this.height + GAP);
  #left = (index) => (index % this.columns) * (this.side + GAP);

  #window() {
    const top = -this.root.getBoundingClientRect().top;
    const row = this.height + GAP;
    const first = Math.max(0, Math.floor((top - innerHeight * 0.6) / row));
    const last = Math.max(0, Math.ceil((top + innerHeight * 1.6) / row));
    return [first * this.columns, Math.min(this.hits.length, last * this.columns)];
  }

  #draw(old = null, all = false) {
    if (!this.columns || !this.root.isConnected) return;
    const [from, to] = this.#window();
    if (!all && from === this.from && to === this.to) return;
    [this.from, this.to] = [from, to];
    const wanted = new Set();
    for (let index = from; index < to; index += 1) wanted.add(this.#tile(index, old).id);
    const kept = this.indexOf(this.selected);
    if (kept >= 0 && this.tiles.get(this.selected)?.element.contains(document.activeElement)) wanted.add(this.#tile(kept, old).id);
    for (const [id, tile] of this.tiles) if (!wanted.has(id)) this.#drop(id, tile, old);
    if (old) this.#settleLater();
    else this.#sort();
    if (to > this.hits.length - 2 * this.columns && this.hits.length) this.onend();
  }

  #tile(index, old) {
    const hit = this.hits[index];
    let tile = this.tiles.get(hit.id);
    const isNew = !tile;
    if (isNew) {
      tile = this.make(hit);
      tile.id = hit.id;
      this.tiles.set(hit.id, tile);
      tile.element.classList.toggle("entering", !old?.has(hit.id));
      this.root.append(tile.element);
    }
    tile.update(hit, index + 1, this.total);
    tile.stop(hit.id === this.#stop());
    if (isNew && old?.has(hit.id)) {
      this.#put(tile, this.#nearby(old.get(hit.id)));
      tile.element.getBoundingClientRect(); // so that the browser draws the start of the movement
    }
    this.#put(tile, index);
    return tile;
  }

  #put(tile, index) {
    const place = `translate(${this.#left(index).toFixed(2)}px, ${this.#top(index).toFixed(2)}px)`;
    if (tile.place !== place) tile.element.style.transform = tile.place = place;
  }

  /** Return the index in the old order, or one just outside the window: nothing flies across 10,000 rows. */
  #nearby(index) {
    return Math.min(Math.max(index, this.from - this.columns + (index % this.columns)), this.to + (index % this.columns));
  }

  #drop(id, tile, old) {
    const index = this.places.get(id);
    if (old?.has(id) && index !== undefined) {
      this.#put(tile, this.#nearby(index));
      tile.leaving = true;
      return;
    }
    tile.element.remove();
    this.tiles.delete(id);
  }

  #settleLater() {
    this.root.classList.add("moving");
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.root.classList.remove("moving");
      this.#draw(null, true);
    }, SLOWEST);
  }

  /** Bring the elements into the order that is seen, for screen readers, once nothing moves any more. */
  #sort() {
    if (this.root.classList.contains("moving")) return;
    const focused = document.activeElement;
    let before = null;
    const tiles = [...this.tiles.values()].sort((a, b) => this.places.get(b.id) - this.places.get(a.id));
    for (const { element } of tiles) {
      if (element.nextElementSibling !== before) {
        if (this.root.moveBefore && element.isConnected) this.root.moveBefore(element, before);
        else this.root.insertBefore(element, before);
      }
      before = element;
    }
    if (focused !== document.activeElement && this.root.contains(focused)) focused.focus({ preventScroll: true });
  }

  #stop() {
    return this.selected ?? this.hits[0]?.id;
  }

  #focused(event) {
    const id = event.target.closest("[data-id]")?.dataset.id;
    if (id !== undefined && id !== this.selected) this.select(id);
  }

  #key(event) {
    if (!event.target.classList.contains("open")) return;
    if (this.step(event.key)) event.preventDefault();
  }

  /** Move the focus by an arrow, Home or End. It stops at the ends. Return whether the key meant anything. */
  step(key) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, Home: -Infinity, End: Infinity };
    if (!(key in steps) || !this.hits.length) return false;
    const last = this.hits.length - 1, here = this.here();
    const next = here < 0 ? 0 : here + steps[key];
    if (Math.abs(steps[key]) === this.columns && (next < 0 || next > last)) {
      const sameRow = Math.floor(here / this.columns) === Math.floor(last / this.columns);
      if (next < 0 || sameRow) return true;
    }
    this.focus(Math.min(last, Math.max(0, next)));
    return true;
  }
}
