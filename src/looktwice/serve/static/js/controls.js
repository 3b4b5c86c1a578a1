// Small controls of the frame: keys, colours, the API key.
import { $, h, icon } from "./dom.js";

const THEMES = ["system", "light", "dark"];

/** Let the button go through the colours: as the system, light, dark. */
export function themeButton(button) {
  let theme = document.documentElement.dataset.theme ?? "system";
  const show = () => {
    button.replaceChildren(icon(theme));
    const words = theme === "system" ? "as the system" : theme;
    button.title = `Colours: ${words}`;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("looktwice.theme");
      else localStorage.setItem("looktwice.theme", theme);
    } catch { /* the choice lasts until the page is left */ }
    show();
  });
  show();
}

/** `/` goes to the query; arrows, Home and End move in the grid when nothing else has the focus. */
export function shortcuts(query, grid) {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    const typing = event.target.matches("input, select, textarea, [contenteditable]");
    if (event.key === "/" && !typing) { event.preventDefault(); query.focus(); }
    else if (event.key === "Escape" && event.target === query.input) query.input.blur();
    else if (event.key === "ArrowDown" && event.target === query.input) { event.preventDefault(); grid.focus(Math.max(0, grid.here())); }
    else if (event.target === document.body && document.body.dataset.view !== "table" && grid.step(event.key)) event.preventDefault();
  });
}

/** Ask a person for the API key. Return it, or null. */
export function askForKey(message) {
  const dialog = $("#key");
  return new Promise((resolve) => {
    const input = h("input", { type: "password", required: true, autocomplete: "off", "aria-label": "API key" });
    const form = h("form", {}, h("header", {}, h("h2", {}, "API key")), h("p", {}, message ?? "This server wants a key."), input,
      h("p.hint", {}, "It is the one in the file of --api-key-file, and is kept until this tab is closed."),
      h("footer", {}, h("button.go", { type: "submit" }, "Go on")));
    form.addEventListener("submit", (event) => { event.preventDefault(); dialog.close(input.value); });
    dialog.addEventListener("close", () => resolve(dialog.returnValue || null), { once: true });
    dialog.returnValue = "";
    dialog.replaceChildren(form);
    dialog.showModal();
  });
}
