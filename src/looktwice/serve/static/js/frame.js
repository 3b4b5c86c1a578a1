// What stands around the hits: which view is shown, the links of the head, the choice of a table, greetings and failures.
import { $, h, icon } from "./dom.js";
import { count } from "./text.js";
import { welcome } from "./welcome.js";

/** Show the parts of a view: home, results, table or welcome. */
export function view(name) {
  const table = name === "table";
  document.body.dataset.view = name;
  $("#table-page").hidden = !table;
  $("#columns").hidden = table;
  $("#ask").hidden = table;
  if (table) $("#stages").hidden = true;
  $("#refine").hidden = name !== "results";
  current("#to-search", !table);
  current("#to-table", table);
}

function current(selector, here) {
  if (here) $(selector).setAttribute("aria-current", "page");
  else $(selector).removeAttribute("aria-current");
}

/** Let the links of the head change the state; opening them in a new tab works as anywhere. */
export function headLinks(go, patches) {
  for (const [id, patch] of Object.entries(patches)) {
    $(`#${id}`).addEventListener("click", (event) => {
      if (event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      go(patch);
    });
  }
  $("#skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("#results").focus();
  });
}

/** Offer the tables, if there are several. */
export function tableChoice(tables, choose) {
  const select = $("#tables");
  select.replaceChildren(...tables.map(({ name, items }) => h("option", { value: name }, `${name} · ${count(items)}`)));
  select.hidden = tables.length < 2;
  select.addEventListener("change", () => choose(select.value));
}

/** Greet where no table is served. */
export function greet() {
  document.body.dataset.view = "welcome";
  $("#results").replaceChildren(welcome());
  $("#search").hidden = true;
  $("#to-table").hidden = true;
}

/** Say that the page cannot go on. */
export function failed(error) {
  document.body.dataset.view = "welcome";
  const again = h("button.pill", { type: "button", onclick: () => location.reload() }, icon("again"), "Try again");
  $("#results").replaceChildren(h("div.problem", { role: "alert" }, h("p", {}, error.message), again));
}
