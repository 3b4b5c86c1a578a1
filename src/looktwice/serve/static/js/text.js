// Numbers and sentences as people read them.

/** Return a number with a fixed count of decimals, and a true minus sign. */
export const fixed = (value, decimals = 3) => value.toFixed(decimals).replace("-", "−");

/** Return a count with separators: 12,345. */
export const count = (n) => n.toLocaleString("en-US");

/** Return "1 image", "2 images". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Return a duration: 38 ms, 1.2 s. */
export const duration = (seconds) => (seconds < 0.9995 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`);

/** Return bytes with a binary unit: 12 B, 1.5 KiB. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${n < 10 && unit ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

/** Return a share as a percentage with as many digits as it needs: 96 %, 0.07 %. */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "under 0.01 %";
  if (value > 99.99 && value < 100) return "over 99.99 %";
  const digits = value < 1 ? 2 : value < 10 || value > 99 ? 1 : 0;
  return `${Number(value.toFixed(digits))} %`;
}

/** Return what the probability outside the labels means, in plain words. */
export function offMassWords(offMass) {
  if (offMass === null || offMass === undefined) return "The model did not say how much of its answer lay outside the labels.";
  const rest = `${percent(offMass)} of its probability went to other words`;
  if (offMass < 0.05) return `The model kept to the question: only ${rest}.`;
  if (offMass < 0.3) return `The model mostly kept to the question: ${rest}.`;
  return `The model wanted to say something else: ${rest}. Read p with care.`;
}

/** Return how far a hit moved, for eyes and for ears. */
export function movement(hit) {
  const places = hit.coarse_rank - hit.rank;
  if (!places || !Number.isFinite(places)) return { places: 0, shown: "", said: "" };
  const up = places > 0;
  return {
    places,
    shown: `${up ? "▲" : "▼"}\u2009${count(Math.abs(places))}`,
    said: `${up ? "up" : "down"} ${plural(Math.abs(places), "place")}`,
  };
}

/** Return the sentence that a screen reader says for a hit: "image 2 of 10, p 0.93, …". */
export function spokenHit(hit, position, total) {
  const kind = hit.text && !hasImage(hit) ? "text" : "image";
  const parts = [`${kind} ${position} of ${total}`];
  if (typeof hit.p === "number") parts.push(`p ${hit.p.toFixed(2)}`);
  else if (hit.pending) parts.push("waiting for the second look");
  if (typeof hit.coarse === "number") parts.push(`coarse ${hit.coarse.toFixed(2)}`);
  const moved = movement(hit).said;
  if (moved) parts.push(moved);
  return [...parts, hit.id].join(", ");
}

/** Return whether a hit has an image that a preview can show. */
export const hasImage = (hit) => hit.has_image ?? (hit.preview !== null && hit.uri_kind !== "text");
