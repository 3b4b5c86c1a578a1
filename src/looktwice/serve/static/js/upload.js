// Adds images to a table, three at a time, each with its progress.
import { item, upload } from "./api.js";
import { h, icon } from "./dom.js";
import { dataUri } from "./images.js";
import { bytes, plural } from "./text.js";

const AT_ONCE = 3;

/** Return the section that adds images to a table; `done()` is called after each batch. */
export function uploader(about, done) {
  const list = h("ul.uploads");
  const summary = h("p.hint", { role: "status" });
  const file = h("input", { type: "file", multiple: true, accept: "image/*,.heic,.heif,.avif,.tif,.tiff", "aria-label": "Images to add", onchange: () => take(file.files) });
  const text = h("input", { type: "text", placeholder: "caption, for all of them (optional)", "aria-label": "Caption for all of them" });
  const zone = h("label.zone", {}, icon("upload"), h("span", {}, h("b", {}, "Drop images here"), " or choose files"), file);
  const section = h("section.upload", {}, h("h2", {}, "Add images"), zone, text, summary, list);

  for (const name of ["dragover", "drop"]) {
    section.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", name === "dragover");
      if (name === "drop") take(event.dataTransfer.files);
    });
  }
  section.addEventListener("dragleave", () => zone.classList.remove("over"));

  async function take(files) {
    const rows = [...files].map((one) => row(one, list));
    file.value = "";
    const queue = [...rows];
    const counts = { added: 0, failed: 0 };
    const work = async () => {
      for (let one = queue.shift(); one; one = queue.shift()) {
        counts[await one.send(about, text.value.trim()) ? "added" : "failed"] += 1;
        summary.textContent = `${plural(counts.added, "image")} of ${rows.length} added${counts.failed ? `, ${counts.failed} refused` : ""}.`;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    done();
  }
  return section;
}

function row(file, list) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": `Upload of ${file.name}` });
  const words = h("span.hint", {}, bytes(file.size));
  const element = h("li", {}, h("bdi", {}, file.name), bar, words);
  list.prepend(element);
  const end = (kind, sentence) => { element.className = kind; words.textContent = sentence; bar.value = 1; };
  const send = async (about, text) => {
    const most = about.limits?.body;
    if (most && file.size * 1.37 > most) { end("bad", `Larger than the ${bytes(most)} that this server takes; start it with a larger --max-body.`); return false; }
    try {
      const body = { image: await dataUri(file), ...(text && { text }) };
      const answer = await upload(item(about.name, file.name), body, (share) => { bar.value = 0.95 * share; });
      end("good", answer?.status ?? "added");
      return true;
    } catch (error) {
      end("bad", error.message);
      return false;
    }
  };
  return { send };
}
