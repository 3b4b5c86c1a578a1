// Shows openapi.json as text: no framework, nothing from elsewhere.

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const nameOf = (reference) => reference.split("/").at(-1);

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return nameOf(schema.$ref);
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items) || "anything"}`;
  return schema.type ?? "anything";
}

function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, about]) => {
    const needed = schema.required?.includes(name) ? "required" : JSON.stringify(about.default) ?? "";
    const cells = [element("code", name), typeOf(about), needed, about.description ?? ""];
    return element("tr", "", ...cells.map((cell) => element("td", "", cell)));
  });
  const head = ["field", "type", "default", "meaning"].map((name) => element("th", name));
  return element("table", "", element("thead", "", element("tr", "", ...head)), element("tbody", "", ...rows));
}

function mentioned(schema, found = new Set()) {
  if (schema && typeof schema === "object") {
    if (schema.$ref) found.add(nameOf(schema.$ref));
    for (const value of Object.values(schema)) mentioned(value, found);
  }
  return found;
}

function shapes(title, content, schemas) {
  const first = Object.entries(content ?? {}).filter(([, body]) => body.schema);
  const names = new Set();
  const visit = (schema) => {
    for (const name of mentioned(schema)) if (!names.has(name)) { names.add(name); visit(schemas[name]); }
  };
  first.forEach(([, body]) => visit(body.schema));
  if (!names.size) return [];
  const kinds = Object.keys(content).join(", ");
  const parts = [...names].map((name) => {
    const about = element("p", schemas[name].description ?? "");
    return element("section", "", element("h3", name), about, fields(schemas[name]));
  });
  return [element("details", "", element("summary", `${title} (${kinds})`), ...parts)];
}

function route(path, method, about, schemas) {
  const anchor = `${method}${path}`;
  const head = element("h2", "", element("b", method.toUpperCase()), element("code", path));
  const parts = [head, element("p", about.description ?? about.summary)];
  if (about.parameters?.length) {
    const properties = Object.fromEntries(about.parameters.map((one) => [one.name, { ...one.schema, ...one }]));
    const required = about.parameters.filter((one) => one.required).map((one) => one.name);
    parts.push(fields({ properties, required }));
  }
  parts.push(...shapes("Request", about.requestBody?.content, schemas));
  parts.push(...shapes("Answer", about.responses?.["200"]?.content, schemas));
  const made = element("section", "", ...parts);
  made.id = anchor;
  return made;
}

const document_ = await (await fetch("openapi.json")).json();
const schemas = document_.components.schemas;
const index = document.getElementById("index");
const routes = document.getElementById("routes");
document.getElementById("about").textContent = `${document_.info.description} Version ${document_.info.version}.`;
routes.textContent = "";
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, about] of Object.entries(methods)) {
    const link = element("a", `${method.toUpperCase()} ${path}`);
    link.href = `#${method}${path}`;
    index.append(link);
    routes.append(route(path, method, about, schemas));
  }
}
