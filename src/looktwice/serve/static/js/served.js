// What the server holds: its tables, and the page and columns of the one that is shown.
import { get } from "./api.js";

const AGAIN = 700; // milliseconds between two questions to a server that still loads

export class Served {
  constructor() {
    this.tables = [];
    this.about = null;
    this.facets = [];
  }

  /** Learn what is served; `waiting()` is called while the server still loads its models. */
  async load(waiting) {
    for (;;) {
      try {
        this.tables = (await get("tables")).tables;
        return;
      } catch (error) {
        if (error.code !== "loading") throw error;
        waiting();
        await new Promise((resolve) => setTimeout(resolve, AGAIN));
      }
    }
  }

  /** Return the table of this name, or the first one: a link may leave it out, or name one that is not served. */
  named(name) {
    if (this.tables.some((one) => one.name === name)) return name;
    return (this.tables.find((one) => one.default) ?? this.tables[0]).name;
  }

  /** Open a table. Return whether it was another one before. */
  async open(name) {
    if (this.about?.name === name) return false;
    const path = `tables/${encodeURIComponent(name)}`;
    const [about, facets] = await Promise.all([get(path), get(`${path}/facets`).catch(() => ({ columns: [] }))]);
    this.about = about;
    this.facets = facets.columns;
    return true;
  }

  /** Read the open table's page anew, after a write; the old one stays if that fails. */
  async reopen() {
    const before = this.about;
    this.about = null;
    await this.open(before.name).catch(() => { this.about = before; });
  }
}
