// The items of a table as they are stored, page by page: what is shown while nothing is asked.
import { get } from "./api.js";

const PAGE = 60;

export class Browse {
  constructor() {
    this.clear();
  }

  clear() {
    Object.assign(this, { table: null, items: [], total: 0, ended: false });
  }

  /** Begin with a table, unless it is the present one. */
  begin({ name, items }) {
    if (this.table === name) return;
    Object.assign(this, { table: name, items: [], total: items, ended: false });
  }

  /** Load the next page. Return whether anything came. */
  async more() {
    if (this.ended) return false;
    const { table } = this;
    const page = await get(`tables/${encodeURIComponent(table)}/items?offset=${this.items.length}&limit=${PAGE}`);
    if (table !== this.table) return false;
    this.items.push(...page.items);
    this.total = page.total ?? this.items.length;
    this.ended = page.items.length < PAGE;
    return page.items.length > 0;
  }

  /** Return the items as hits without scores. */
  hits() {
    return this.items.map((item, place) => ({ ...item, rank: place + 1 }));
  }
}
