// What the page says where there is no table yet: how to make one, line by line.
import { copy, h, icon } from "./dom.js";

const STEPS = [
  ["Try it with the bundled drawings", "looktwice demo --serve"],
  ["Index a folder of photos", "looktwice index album.lt ~/Pictures --preset laptop"],
  ["Serve it, with a model for the second look", "looktwice serve album.lt --mllm smolvlm-256m"],
];

/** Return the start page of a server without tables. */
export function welcome() {
  return h("section.welcome", {},
    h("h2", {}, "No table is served yet"),
    h("p", {}, "A table holds your images as vectors. Make one on the command line and name it to ", h("code", {}, "looktwice serve"), "; then this page searches it."),
    h("ol", {}, STEPS.map(([why, command]) => h("li", {}, h("p", {}, why),
      h("div.command", {}, h("code", {}, command),
        h("button.plain", { type: "button", "aria-label": `Copy: ${command}`, onclick: () => copy(command, "the command line") }, icon("copy")))))),
    h("p.hint", {}, "Re-ranking needs no table: ", h("a", { href: "docs" }, "the API"), " answers /v1/rerank, /v1/score and /v1/decisions already."),
  );
}
