// Runs one search at a time, keeps the last answers for Back, and loads more hits as one scrolls.
import { Answer } from "./answer.js";
import { post, stream } from "./api.js";
import { FIRST, searchBody } from "./request.js";
import { requestKey } from "./state.js";

const KEPT = 12;

export class Searches {
  /** `heard(name, data)` is called after each event of the current answer, and with "over" at its end. */
  constructor(heard) {
    this.heard = heard;
    this.kept = new Map();
    this.answer = null;
    this.exhausted = new WeakSet();
  }

  /** Make the state's answer the current one: a kept one, or a new one that begins to arrive. Return if it was kept. */
  take(state, about) {
    const key = requestKey(state);
    if (this.answer?.key === key) return true;
    this.halt();
    this.answer = this.kept.get(key) ?? null;
    if (this.answer) return true;
    this.answer = new Answer(key, state.depth);
    this.#run(this.answer, state, about);
    return false;
  }

  /** Stop what runs; what has come stays. */
  halt() {
    this.asking?.abort();
    this.answer?.stop();
  }

  /** Show no answer. */
  leave() {
    this.halt();
    this.answer = null;
  }

  /** Forget answers: all, or the current one, which can then be asked for again. */
  forget({ all = false } = {}) {
    if (all) this.kept.clear();
    else this.kept.delete(this.answer?.key);
    this.leave();
  }

  /** Load hits below those of the first look. Return whether there were any. */
  async more(state, about) {
    const { answer } = this;
    const most = Math.min(about.limits?.k ?? 10_000, about.items);
    const over = !answer || this.exhausted.has(answer) || answer.hits.size >= most || answer.hits.size < FIRST;
    if (over || !["done", "stopped"].includes(answer.state)) return false;
    const { hits } = await post("search", searchBody(state, about, { k: Math.min(most, answer.hits.size * 3), rerank: false, stream: false }));
    if (answer.more(hits)) return answer === this.answer;
    this.exhausted.add(answer);
    return false;
  }

  async #run(answer, state, about) {
    const asking = new AbortController();
    this.asking = asking;
    try {
      await stream("search", searchBody(state, about), (name, data) => this.#hear(answer, name, data), asking.signal);
      if (["looking", "waiting"].includes(answer.state)) answer.fail("The answer ended early; search again.");
    } catch (error) {
      if (error.name === "AbortError") return;
      answer.fail(error.message);
    }
    if (answer.state === "done") this.#keep(answer);
    if (answer === this.answer) this.heard("over", null);
  }

  #hear(answer, name, data) {
    if (answer !== this.answer) return;
    answer.take(name, data);
    this.heard(name, data);
  }

  #keep(answer) {
    this.kept.set(answer.key, answer);
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
  }
}
