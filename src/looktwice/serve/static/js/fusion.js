// The order of hits, by the rules of looktwice/rank: fused score, then entropy among ties, then coarse score, then id.

/** Scores within this distance of their group's best are tied, as the default rule for ties says. */
export const TOLERANCE = 1e-6;

/** Compare two ids by code point, as Python does; JavaScript's own comparison goes by UTF-16 unit. */
export function compareIds(a, b) {
  const left = a[Symbol.iterator](), right = b[Symbol.iterator]();
  for (;;) {
    const one = left.next(), other = right.next();
    if (one.done || other.done) return Number(other.done ?? false) - Number(one.done ?? false);
    const difference = one.value.codePointAt(0) - other.value.codePointAt(0);
    if (difference) return difference;
  }
}

/** Return whether the second look gave this hit a probability. */
export const isScored = (hit) => typeof hit.p === "number" && Number.isFinite(hit.p);

/** Return whether all scored hits were in a middle look; its score then stands for what was known before the second. */
export const hasMiddle = (hits) => hits.some(isScored) && hits.filter(isScored).every((hit) => typeof hit.maxsim === "number");

/** Return λ, and whether log-odds take the place of p: that is so where searches of the table have a middle look. */
export function ruleOf({ weight, depth }, about) {
  const odds = Boolean(about?.maxsim && depth);
  return { weight: weight ?? (odds ? 0.75 : 0.5), odds };
}

/** Return the log-odds of p from −8 to 8, scaled to 0 to 1. */
const scaledOdds = (p) => 0.5 + Math.min(Math.max(Math.log(p / (1 - p)), -8), 8) / 16;

/** Return the parts of a score, λ·known + (1−λ)·p: [weight, value, name] each. */
export const parts = (hit, { weight, odds }, middle) => [
  middle ? [weight, hit.maxsim, "maxsim"] : [weight, hit.coarse, "coarse"],
  odds ? [1 - weight, scaledOdds(hit.p), "odds"] : [1 - weight, hit.p, "p"],
];

/** Return a function from a coarse score to the length of its bar, from the lowest score among the hits to the highest. */
export function coarseScale(hits) {
  let low = Infinity, high = -Infinity;
  for (const { coarse } of hits) if (coarse !== undefined) [low, high] = [Math.min(low, coarse), Math.max(high, coarse)];
  return (coarse) => (high > low ? 0.04 + 0.96 * ((coarse - low) / (high - low)) : 1);
}

/** Return λ·known + (1−λ)·p. */
export const fused = (hit, rule, middle) => parts(hit, rule, middle).reduce((sum, [share, value]) => sum + share * value, 0);

/**
 * Return the hits best first, each with a new `score` and `rank`: scored ones by the fused score of a `rule`,
 * then the others in the order of the middle look where it saw them, then by coarse score. Unscored scores are lowered by one constant, so
 * that sorting by score and sorting by rank give the same order.
 */
export function ranked(hits, rule) {
  const middle = hasMiddle(hits);
  const scored = tied(hits.filter(isScored).map((hit) => ({ hit, value: fused(hit, rule, middle) })));
  const rest = hits.filter((hit) => !isScored(hit)).sort(byFirstLooks);
  const ceiling = scored.length ? scored[scored.length - 1].value - 1 : 0;
  const shift = scored.length && rest.length ? Math.max(...rest.map((hit) => hit.coarse)) - ceiling : 0;
  const lowered = rest.map((hit) => ({ hit, value: hit.coarse - shift }));
  return [...scored, ...lowered].map(({ hit, value }, place) => ({ ...hit, score: value, rank: place + 1 }));
}

/** Sort rows by value; rows that are tied share the best value among them and are ordered by `tieKey`. */
function tied(rows) {
  rows.sort((a, b) => b.value - a.value);
  let best = Infinity;
  for (const row of rows) {
    if (best - row.value <= TOLERANCE) row.value = best;
    else best = row.value;
  }
  return rows.sort((a, b) => b.value - a.value || compareTies(a.hit, b.hit));
}

/** Answers of "yes" go before answers of "no"; among the former the most certain goes first, among the latter last. */
function tieKey(hit) {
  if (typeof hit.entropy !== "number") return [2, 0];
  return hit.p < 0.5 ? [1, -hit.entropy] : [0, hit.entropy];
}

function compareTies(a, b) {
  const [kindA, entropyA] = tieKey(a), [kindB, entropyB] = tieKey(b);
  return kindA - kindB || entropyA - entropyB || b.coarse - a.coarse || compareIds(a.id, b.id);
}

function byFirstLooks(a, b) {
  const place = (hit) => hit.middle_place ?? Infinity;
  if (place(a) !== place(b)) return place(a) - place(b);
  return b.coarse - a.coarse || compareIds(a.id, b.id);
}

/** Return P(relevant) of a probability by a calibration's curve, between whose points it is a straight line. */
export function calibrated(curve, p) {
  if (!curve?.length) return null;
  const after = curve.findIndex(([x]) => x >= p);
  if (after <= 0) return curve[after === 0 ? 0 : curve.length - 1][1];
  const [x0, y0] = curve[after - 1], [x1, y1] = curve[after];
  return x1 === x0 ? y1 : y0 + ((y1 - y0) * (p - x0)) / (x1 - x0);
}

/** Return the highest precision that a calibration promises at this threshold of p, or null. */
export function promisedPrecision(thresholds, least) {
  const kept = Object.entries(thresholds ?? {}).filter(([, p]) => p <= least).map(([precision]) => Number(precision));
  return kept.length ? Math.max(...kept) : null;
}
