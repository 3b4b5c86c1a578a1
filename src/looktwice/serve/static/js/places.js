// Where one was in the browser's history: scroll and selection of every entry, restored by Back and by a reload.

history.scrollRestoration = "manual";

/** Return what the current entry remembers: {y, selected, opened}. */
export const place = () => history.state ?? {};

/** Change what the current entry remembers. */
export function remember(more) {
  history.replaceState({ ...place(), ...more }, "");
}

/** Put a new link into the history, or into the current entry. */
export function write(link, { push = false, opened = false } = {}) {
  const address = `${location.pathname}${location.search}${link ? `#${link}` : ""}`;
  if (push) history.pushState({ opened }, "", address);
  else history.replaceState(place(), "", address);
}

let waiting = 0;

/** Keep the scroll position of the current entry while one scrolls. */
export function followScroll() {
  addEventListener("scroll", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => remember({ y: Math.round(scrollY) }), 120);
  }, { passive: true });
}

/** Write the position down now: the entry is about to be left. */
export function leave() {
  clearTimeout(waiting);
  remember({ y: Math.round(scrollY) });
}
