// The one field for everything: words, a pasted, dropped, picked or photographed image, or a hit dragged back.
import { previewPath, show } from "./api.js";
import { $, h, icon, iconButton, toast } from "./dom.js";
import { full, take } from "./images.js";
import { DRAGGED } from "./tile.js";

export class QueryField {
  /** `act` has ask(patch), crop(source) and camera(). */
  constructor(form, act) {
    this.form = form;
    this.act = act;
    this.chips = h("span.chips");
    this.input = h("input", {
      type: "search", name: "text", enterKeyHint: "search", spellcheck: false, maxLength: 2000,
      "aria-label": "Words, or paste or drop an image", placeholder: "Describe it, or paste or drop an image",
    });
    this.file = h("input", { type: "file", accept: "image/*,.heic,.heif,.avif,.tif,.tiff", hidden: true, tabIndex: -1, onchange: () => this.#picked() });
    form.append(
      h("span.field", {},
        this.chips,
        this.input,
        h("kbd", { "aria-hidden": "true", title: "Press / to search" }, "/"),
        iconButton("image", "Pick an image file", () => this.file.click()),
        navigator.mediaDevices ? iconButton("camera", "Take a photo", () => act.camera()) : null,
      ),
      this.file,
      h("button.go", { type: "submit" }, icon("search"), h("span", {}, "Search")),
    );
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    addEventListener("paste", (event) => this.#pasted(event));
    this.#listenForDrops();
  }

  /** Show the query of a state. */
  show(state) {
    if (document.activeElement !== this.input || this.input.value.trim() !== state.text) this.input.value = state.text;
    this.chips.replaceChildren(...[
      state.item && this.#itemChip(state),
      state.image && this.#imageChip(state.image),
      ...state.like.map((id) => this.#exampleChip(state, id, "like")),
      ...state.unlike.map((id) => this.#exampleChip(state, id, "unlike")),
    ].filter(Boolean));
    const more = state.item || state.image;
    if (innerWidth < 640) this.input.placeholder = more ? "Add words" : "Words or an image";
    else this.input.placeholder = more ? "Add words, such as “but at night”" : "Describe it, or paste or drop an image";
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  /** Take an image and search with it. */
  async use(blob) {
    const small = await take(blob);
    if (!small) { toast("That file is not an image; choose a JPEG, PNG, WebP or HEIC file.", { bad: true }); return; }
    this.act.ask({ image: small, item: null, text: this.input.value.trim(), like: [], unlike: [] });
  }

  #submit() {
    const text = this.input.value.trim();
    this.act.ask({ text });
    this.input.blur();
  }

  async #picked() {
    const [file] = this.file.files;
    this.file.value = "";
    if (file) await this.use(file);
  }

  async #pasted(event) {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (!file || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    await this.use(file);
  }

  #imageChip(small) {
    const { shown, small: reduced } = full(small);
    const name = reduced ? "Query image, a small copy from the link" : "Query image";
    const image = h("img", { alt: name, title: name, src: shown ?? "" });
    return this.#chip("", image, () => this.act.ask({ image: null }), () => this.act.crop({ shown }));
  }

  #itemChip(state) {
    const image = h("img", { alt: `Query: ${state.item}`, title: state.item });
    show(image, previewPath(state.table, state.item, 160));
    return this.#chip("", image, () => this.act.ask({ item: null }), () => this.act.crop({ item: state.item }));
  }

  #exampleChip(state, id, kind) {
    const image = h("img", { alt: `${kind === "like" ? "Like" : "Unlike"} ${id}`, title: `${kind} ${id}` });
    show(image, previewPath(state.table, id, 160));
    const sign = h("span.sign", { "aria-hidden": "true" }, kind === "like" ? "+" : "−");
    return this.#chip(kind, [image, sign], () => this.act.ask({ [kind]: state[kind].filter((one) => one !== id) }));
  }

  #chip(kind, content, onremove, oncrop) {
    return h(`span.chip${kind ? `.${kind}` : ""}`, {},
      content,
      oncrop && iconButton("crop", "Search with a region of it", oncrop),
      iconButton("close", "Remove from the query", onremove),
    );
  }

  #listenForDrops() {
    const veil = $("#drop");
    const usable = (event) => [...event.dataTransfer.types].some((type) => type === "Files" || type === DRAGGED);
    const blocked = () => document.body.dataset.view === "table" || document.querySelector("dialog[open]");
    addEventListener("dragover", (event) => {
      if (!usable(event) || blocked()) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
      veil.hidden = false;
    });
    addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
    addEventListener("dragend", () => { veil.hidden = true; });
    addEventListener("drop", async (event) => {
      veil.hidden = true;
      if (!usable(event) || blocked()) return;
      event.preventDefault();
      const id = event.dataTransfer.getData(DRAGGED);
      if (id) this.act.ask({ item: id, image: null, like: [], unlike: [] });
      else if (event.dataTransfer.files[0]) await this.use(event.dataTransfer.files[0]);
    });
  }
}
