// The stages of a search as they happen, and one thread per hit from the first look to where it stands now.
import { $, h, icon, svg } from "./dom.js";
import { count, duration, plural } from "./text.js";

const THREADS = 60;

export class Stages {
  constructor(root, { stop }) {
    this.root = root;
    this.rail = h("ol.rail");
    this.threads = svg("svg", { class: "threads", preserveAspectRatio: "none", viewBox: "0 0 100 100", role: "img" });
    this.figure = h("figure.weave", {},
      h("figcaption", { "aria-hidden": "true" }, h("span", {}, "first look"), h("span", {}, "now")), this.threads);
    this.stopper = h("button.plain.stop", { type: "button", onclick: stop }, icon("stop"), "Stop");
    this.paths = new Map();
    root.append(this.rail, this.figure);
  }

  /** Show an answer; `order` are its hits as ranked now. */
  show(answer, order, { onlyFirst = false } = {}) {
    this.root.hidden = !answer;
    if (!answer) return;
    this.onlyFirst = onlyFirst;
    this.tell(answer, order);
    if (answer.state !== "waiting") this.#weave(onlyFirst ? [] : order);
  }

  /** Say how far each stage is. */
  tell(answer, order) {
    const { onlyFirst } = this;
    this.rail.replaceChildren(...[
      first(answer), answer.stages.middle && middle(answer), !onlyFirst && second(answer, order),
    ].filter(Boolean));
    const running = answer.state === "waiting" || answer.state === "looking";
    if (running) this.rail.lastElementChild.append(this.stopper);
  }

  /** Draw the thread of one hit stronger. */
  highlight(id) {
    for (const [one, path] of this.paths) path.classList.toggle("chosen", one === id);
  }

  #weave(order) {
    const looked = order.filter((hit) => hit.p !== null || hit.pending).map((hit) => hit.coarse_rank);
    const reach = Math.min(THREADS, looked.reduce((a, b) => Math.max(a, b), 0));
    const shown = order.filter((hit) => hit.coarse_rank <= reach && reach > 1);
    this.figure.hidden = reach < 2;
    const x = (rank) => Math.min(100, ((rank - 0.5) / reach) * 100);
    const seen = new Set();
    for (const hit of shown) {
      seen.add(hit.id);
      const path = this.paths.get(hit.id) ?? this.#path(hit.id);
      const [top, bottom] = [x(hit.coarse_rank), x(hit.rank)];
      path.setAttribute("d", `M${top.toFixed(2)} 2C${top.toFixed(2)} 50 ${bottom.toFixed(2)} 50 ${bottom.toFixed(2)} 98`);
      const moved = hit.coarse_rank - hit.rank;
      path.classList.toggle("up", hit.p !== null && moved >= 3);
      path.classList.toggle("waits", hit.p === null);
    }
    for (const [id, path] of this.paths) if (!seen.has(id)) { path.remove(); this.paths.delete(id); }
    const up = shown.filter((hit) => hit.coarse_rank > hit.rank).length;
    this.threads.setAttribute("aria-label", `Of the first ${count(reach)} hits, ${count(up)} moved up`);
  }

  #path(id) {
    const path = svg("path", { "vector-effect": "non-scaling-stroke" });
    this.paths.set(id, path);
    this.threads.append(path);
    return path;
  }
}

function step(name, state, title, detail, share = null) {
  const bar = share === null ? null : h("progress", { max: 1, value: share, "aria-label": title });
  return h(`li.step.${name}.${state}`, {}, h("span.dot", { "aria-hidden": "true" }), h("b", {}, title), h("span", {}, detail), bar);
}

function first(answer) {
  const { first: done } = answer.stages;
  if (!done) return step("first", answer.state === "failed" ? "off" : "busy", "First look", answer.state === "failed" ? "failed" : "comparing vectors…");
  return step("first", "done", "First look", `${count(done.count)} by vector in ${duration(done.seconds)}`);
}

function middle(answer) {
  const { middle: done } = answer.stages;
  return step("middle", "done", "Middle look", `${count(done.count)} by stored tokens in ${duration(done.seconds)}`);
}

function second(answer, order) {
  const { second: now } = answer.stages;
  if (!now) {
    const words = { waiting: "", looking: "the model is about to read…", failed: "failed", stopped: "stopped", done: "not taken" };
    return step("second", answer.state === "looking" ? "busy" : "off", "Second look", words[answer.state]);
  }
  const rate = now.done / Math.max(now.seconds, 1e-3);
  if (answer.state === "looking") {
    return step("second", "busy", "Second look", `${count(now.done)} of ${count(now.total)} read`, now.done / now.total);
  }
  const moved = order.filter((hit) => hit.p !== null && hit.coarse_rank !== hit.rank).length;
  const how = answer.state === "done" ? `${plural(now.done, "pair")} in ${duration(now.seconds)}, ${count(Math.round(rate))}/s · ${count(moved)} moved`
    : `${answer.state} after ${count(now.done)} of ${count(now.total)}`;
  return step("second", answer.state === "done" ? "done" : "off", "Second look", how);
}

/** Return the sentence that a screen reader hears as an answer grows. */
export function spokenStage(answer) {
  if (answer.state === "failed") return `The search failed: ${answer.error}`;
  if (answer.state === "done" && answer.stages.second) return `Second look done: ${plural(answer.stages.second.done, "pair")} read.`;
  if (answer.state === "done" || answer.state === "looking") return `First look: ${plural(answer.stages.first?.count ?? 0, "hit")}.`;
  return "";
}
