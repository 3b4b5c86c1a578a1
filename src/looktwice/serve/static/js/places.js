// Where one was in the browser's history: scroll and selection of every entry, restored by Back and by a reload.

const CALM = 250; // milliseconds between two changes of an entry: browsers refuse a hundred in half a minute

history.scrollRestoration = "manual";
let pending = null; // {state, address} that is not in the entry yet
let last = -CALM;
let timer = 0;

/** Return what the current entry remembers: {y, selected, opened}. */
export const place = () => pending?.state ?? history.state ?? {};

/** Change what the current entry remembers. */
export function remember(more) {
  replace(more, pending?.address);
}

/** Put a new link into the history, or into the current entry. */
export function write(link, { push = false, opened = false } = {}) {
  const address = `${location.pathname}${location.search}${link ? `#${link}` : ""}`;
  if (!push) { replace({}, address); return; }
  flush();
  history.pushState({ opened }, "", address);
}

/** Return the link of the page as it is now. */
export function address() {
  flush();
  return location.href;
}

function replace(more, address) {
  pending = { state: { ...place(), ...more }, address };
  clearTimeout(timer);
  const wait = last + CALM - performance.now();
  if (wait <= 0) flush();
  else timer = setTimeout(flush, wait);
}

function flush() {
  clearTimeout(timer);
  if (!pending) return;
  history.replaceState(pending.state, "", pending.address);
  pending = null;
  last = performance.now();
}

addEventListener("pagehide", flush);
addEventListener("popstate", () => { clearTimeout(timer); pending = null; }); // it belonged to the entry that was left

let scrolling = 0;

/** Keep the scroll position of the current entry while one scrolls. */
export function followScroll() {
  addEventListener("scroll", () => {
    clearTimeout(scrolling);
    scrolling = setTimeout(() => remember({ y: Math.round(scrollY) }), 120);
  }, { passive: true });
}

/** Write the position down now: the entry is about to be left. */
export function leave() {
  clearTimeout(scrolling);
  remember({ y: Math.round(scrollY) });
  flush();
}
