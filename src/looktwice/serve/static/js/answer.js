// One answer of the server as it grows: the first look, the middle look, then scores block by block.
import { isScored, ranked } from "./fusion.js";

export class Answer {
  constructor(key, depth) {
    this.key = key;
    this.depth = depth;
    this.hits = new Map();
    this.stages = { first: null, middle: null, second: null };
    this.state = "waiting"; // waiting, looking, done, stopped, failed
    this.error = null;
    this.manifest = null;
  }

  /** Take in one event of the stream. */
  take(name, data) {
    if (name === "first") this.#first(data);
    else if (name === "middle") this.#middle(data);
    else if (name === "scores") this.#scores(data);
    else if (name === "end") this.#end(data);
    else if (name === "error") this.fail(data.error?.message ?? "The server stopped with an error.");
  }

  fail(message) {
    this.state = "failed";
    this.error = message;
    this.#settle();
  }

  stop() {
    if (this.state !== "looking" && this.state !== "waiting") return;
    this.state = "stopped";
    this.#settle();
  }

  /** Add further hits of the first look; return how many were new. */
  more(hits) {
    const before = this.hits.size;
    for (const hit of hits) if (!this.hits.has(hit.id)) this.hits.set(hit.id, { ...hit, coarse_rank: hit.coarse_rank ?? hit.rank });
    return this.hits.size - before;
  }

  /** Return all hits in the order of a rule. */
  order(rule) {
    return ranked([...this.hits.values()], rule);
  }

  get scored() {
    return [...this.hits.values()].filter(isScored).length;
  }

  #first({ hits, seconds }) {
    this.state = "looking";
    this.stages.first = { seconds, count: hits.length };
    hits.forEach((hit, place) => {
      this.hits.set(hit.id, { ...hit, coarse_rank: hit.coarse_rank ?? place + 1, p: hit.p ?? null, pending: place < this.depth });
    });
    this.started = performance.now();
  }

  #middle({ scores, order, seconds }) {
    const rank = new Map((order ?? []).map((id, place) => [id, place + 1]));
    for (const { id, maxsim } of scores) this.#put(id, { maxsim });
    for (const hit of this.hits.values()) {
      hit.middle_place = rank.get(hit.id) ?? null;
      hit.pending = (hit.middle_place ?? Infinity) <= this.depth;
    }
    this.stages.middle = { seconds, count: scores.length };
  }

  #scores({ scores, done, total }) {
    for (const { id, ...score } of scores) this.#put(id, { ...score, pending: false });
    this.stages.second = { done, total, seconds: (performance.now() - this.started) / 1000 };
  }

  #end({ hits, manifest, stages }) {
    for (const hit of hits ?? []) this.#put(hit.id, hit);
    this.manifest = manifest ?? null;
    this.times = stages ?? {};
    this.state = "done";
    this.#settle();
  }

  #settle() {
    for (const hit of this.hits.values()) hit.pending = false;
  }

  #put(id, values) {
    const known = this.hits.get(id);
    this.hits.set(id, { id, coarse: 0, p: null, ...known, ...values, coarse_rank: values.coarse_rank ?? known?.coarse_rank ?? null });
  }
}
