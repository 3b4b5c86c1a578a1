// One hit in the grid: its image on a mat, two bars for the two looks, how far it moved, and what can be done with it.
import { previewPath, show } from "./api.js";
import { h, iconButton } from "./dom.js";
import { fixed, hasImage, movement, plural, spokenHit } from "./text.js";

export const DRAGGED = "application/x-looktwice-id";

/** Return the image of a hit, or its text on a card. */
export function thumbnail(table, hit, width = 320) {
  if (!hasImage(hit)) return h("span.mat.card", {}, h("bdi", {}, hit.text || hit.id));
  const mat = h("span.mat.loading");
  const image = h("img", { alt: "", loading: "lazy", decoding: "async", draggable: false });
  image.addEventListener("load", () => mat.classList.remove("loading"));
  image.addEventListener("error", () => {
    mat.classList.remove("loading");
    mat.classList.add("card");
    mat.replaceChildren(h("bdi", {}, hit.text || hit.id));
  });
  mat.append(image);
  show(image, previewPath(table, hit.id, width, hit.preview));
  return mat;
}

/** Return a maker of tiles. `act` says what happens: open, like, mark; `context()` gives table, marks and coarse range. */
export function tileMaker(act, context) {
  return (hit) => new Tile(hit, act, context);
}

class Tile {
  constructor(hit, act, context) {
    this.context = context;
    this.hit = hit;
    this.rank = h("b.rank");
    this.move = h("span.move", { "aria-hidden": "true" });
    this.p = h("span.p");
    this.name = h("bdi.name", {}, hit.id);
    this.coarse = h("span.coarse");
    this.firstBar = h("i.first");
    this.secondBar = h("i.second");
    this.button = h(
      "a.open",
      { href: "#", draggable: true, onclick: (event) => this.#open(event, act), onpointerdown: () => this.#link(act), onfocus: () => this.#link(act) },
      thumbnail(context().table, hit),
      h("span.bars", { "aria-hidden": "true" }, h("span.track", {}, this.firstBar), h("span.track.thick", {}, this.secondBar)),
      h("span.line", {}, this.rank, this.move, this.p),
      h("span.line.soft", {}, this.name, this.coarse),
    );
    this.more = h("span.more");
    this.acts = h("span.acts", {},
      iconButton("like", `More like ${hit.id}`, () => act.like(this.hit.id)),
      (this.right = iconButton("right", `Mark ${hit.id} right`, (event) => act.mark(this.hit.id, 1, event.shiftKey), { "aria-pressed": "false" })),
      (this.wrong = iconButton("wrong", `Mark ${hit.id} wrong`, (event) => act.mark(this.hit.id, 0, event.shiftKey), { "aria-pressed": "false" })),
    );
    this.element = h("li.tile", { data: { id: hit.id } }, this.button, this.more, this.acts);
    this.button.addEventListener("dragstart", (event) => this.#drag(event));
    this.element.addEventListener("animationend", () => this.element.classList.remove("entering", "news"));
  }

  /** Show the newest numbers of a hit at its position. */
  update(hit, position, total) {
    const scoredNow = typeof hit.p === "number" && typeof this.hit.p !== "number" && this.hit.pending;
    this.hit = hit;
    const { marks, scale, browsing } = this.context();
    const classes = this.element.classList;
    classes.toggle("pending", Boolean(hit.pending));
    classes.toggle("unscored", !browsing && typeof hit.p !== "number");
    classes.toggle("browsed", browsing);
    if (scoredNow) classes.add("news");
    this.#numbers(hit, scale, browsing);
    this.#marked(marks?.[hit.id]);
    this.more.replaceChildren(hit.folded?.length ? `+${hit.folded.length}` : "");
    this.more.title = hit.folded?.length ? `${plural(hit.folded.length, "near-duplicate")} folded` : "";
    this.button.setAttribute("aria-label", spokenHit(hit, position, total));
    this.element.setAttribute("aria-posinset", position);
    this.element.setAttribute("aria-setsize", total);
  }

  #numbers(hit, scale, browsing) {
    if (browsing || hit.coarse === undefined) return; // an item that nobody asked for, or one that waits to be replaced
    const moved = movement(hit);
    this.rank.textContent = hit.rank;
    this.move.textContent = moved.shown;
    this.move.className = `move ${moved.places > 0 ? "up" : "down"}`;
    const failed = hit.status && !["ok", "unscored"].includes(hit.status);
    this.p.textContent = typeof hit.p === "number" ? `p ${fixed(hit.p)}` : failed ? hit.status : "";
    this.coarse.textContent = `coarse ${fixed(hit.coarse)}`;
    this.firstBar.style.width = `${(100 * scale(hit.coarse)).toFixed(1)}%`;
    this.secondBar.style.width = `${(100 * (hit.p ?? 0)).toFixed(1)}%`;
  }

  #marked(mark) {
    this.element.classList.toggle("is-right", mark === 1);
    this.element.classList.toggle("is-wrong", mark === 0);
    this.right.setAttribute("aria-pressed", String(mark === 1));
    this.wrong.setAttribute("aria-pressed", String(mark === 0));
  }

  /** Make this tile the one tab stop of the grid, or not. */
  stop(here) {
    for (const button of [this.button, ...this.acts.children]) button.tabIndex = here ? 0 : -1;
  }

  /** A link opens in a new tab as any other does; a plain click stays here. */
  #open(event, act) {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    act.open(this.hit.id);
  }

  #link(act) {
    this.button.href = act.address(this.hit.id);
  }

  #drag(event) {
    event.dataTransfer.setData(DRAGGED, this.hit.id);
    event.dataTransfer.setData("text/plain", this.hit.id);
    event.dataTransfer.setData("text/uri-list", this.button.href);
    event.dataTransfer.effectAllowed = "copy";
    const image = this.element.querySelector("img");
    if (image) event.dataTransfer.setDragImage(image, 40, 40);
  }
}
