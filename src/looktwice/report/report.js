// Sorting, finding, opening and closing. The page says everything without it.
(() => {
  "use strict";
  const list = document.getElementById("list");
  const tools = document.querySelector(".tools");
  const queries = [...list.children];
  if (queries.length < 2) return;
  tools.hidden = false;

  const number = (query, name) => Number(query.dataset[name]);
  const orders = {
    gain: (a, b) => number(b, "gain") - number(a, "gain"),
    loss: (a, b) => number(a, "gain") - number(b, "gain"),
    low: (a, b) => number(a, "after") - number(b, "after"),
    moved: (a, b) => number(b, "moved") - number(a, "moved"),
    given: () => 0,
  };
  const named = (query) => [...query.querySelectorAll("h3, .id")].map((name) => name.textContent).join(" ").toLowerCase();
  const words = new Map(queries.map((query) => [query, named(query)]));
  const shown = () => queries.filter((query) => !query.hidden);
  const note = document.querySelector("h2 span");

  tools.elements.sort.addEventListener("change", (event) => {
    const order = orders[event.target.value];
    queries.sort((a, b) => order(a, b) || number(a, "given") - number(b, "given"));
    list.append(...queries);
    if (note) note.textContent = event.target.selectedOptions[0].textContent + " first";
    if (note && event.target.value === "given") note.textContent = "in the order given";
  });
  tools.elements.find.addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const query of queries) query.hidden = !words.get(query).includes(wanted);
    tools.querySelector("output").textContent = wanted ? `${shown().length} of ${queries.length}` : "";
  });
  tools.elements.open.addEventListener("click", () => shown().forEach((query) => { query.open = true; }));
  tools.elements.close.addEventListener("click", () => shown().forEach((query) => { query.open = false; }));
  tools.addEventListener("submit", (event) => event.preventDefault());
})();
