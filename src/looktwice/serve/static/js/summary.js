// The line above the hits: how many, what narrows them, what went wrong, marks and the link.
import { copy, h, icon } from "./dom.js";
import { address } from "./places.js";
import { conditionChips } from "./refine.js";
import { count, fixed, plural } from "./text.js";

export class Summary {
  constructor(root, act) {
    this.root = root;
    this.act = act;
    this.words = h("p.count");
    this.chips = h("div.pills");
    this.problem = h("div");
    this.marks = h("button.pill", { type: "button", onclick: () => act.marks() });
    this.link = h("button.pill", { type: "button", onclick: () => copy(address(), "the link") }, icon("link"), "Copy link");
    this.refine = h("button.pill.to-refine", { type: "button", "aria-controls": "refine", "aria-expanded": "false", onclick: () => this.#toggle() }, icon("sliders"), "Refine");
    root.append(h("div.heading", {}, this.words, h("div.group", {}, this.refine, this.marks, this.link)), this.chips, this.problem);
  }

  show({ state, answer, browsing, order, shown, total }) {
    this.marks.hidden = browsing;
    this.refine.hidden = browsing;
    this.link.hidden = browsing;
    this.words.textContent = browsing ? "" : countWords(answer, order, shown);
    const marked = state.yes.length + state.no.length;
    this.marks.replaceChildren(icon("right"), marked ? `Marks · ${marked}` : "Marks");
    this.chips.replaceChildren(...conditionChips(state.where, this.act.ask), ...this.#hidden(order, shown, state, browsing));
    this.problem.replaceChildren(...problem(answer, this.act), ...empty(answer, shown, browsing, total));
  }

  #hidden(order, shown, state, browsing) {
    const n = order.length - shown.length;
    if (browsing || !n) return [];
    const label = `${plural(n, "hit")} below p ${fixed(state.least, 2)} hidden`;
    return [h("button.pill.filter", { type: "button", "aria-label": `${label}; show all`, onclick: () => this.act.adjust({ least: 0 }) }, label, icon("close"))];
  }

  #toggle() {
    const open = document.body.classList.toggle("refining");
    this.refine.setAttribute("aria-expanded", String(open));
  }
}

function countWords(answer, order, shown) {
  if (!answer || answer.state === "waiting") return "Looking…";
  return shown.length === order.length ? plural(order.length, "hit") : `${count(shown.length)} of ${plural(order.length, "hit")}`;
}

function problem(answer, act) {
  if (answer?.state !== "failed") return [];
  return [h("div.problem", { role: "alert" }, h("p", {}, answer.error), h("button.pill", { type: "button", onclick: act.again }, icon("again"), "Try again"))];
}

function empty(answer, shown, browsing, total) {
  if (browsing) return total === 0 ? [h("p.hint", {}, "The table is empty.")] : [];
  if (shown.length || !answer || answer.state === "waiting" || answer.state === "failed") return [];
  return [h("p.nothing", {}, "Nothing matches. Remove a filter, or lower the least p.")];
}
