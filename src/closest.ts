/** Finds the names that somebody probably meant, for error messages. */

/** Shorter beginnings of words say too little: "conf" for "confidence". */
const MIN_SHARED_BEGINNING = 3;

/** `; did you mean "cat"?`, or an empty string where no candidate is near in spelling or shares a word. */
export function didYouMean(given: string, candidates: readonly string[]): string {
  const nearest = closestSpelling(given, candidates);
  const meant = nearest === undefined ? sharingMostWords(given, candidates) : [nearest];
  return meant.length === 0
    ? ""
    : `; did you mean ${meant.map((name) => JSON.stringify(name)).join(" or ")}?`;
}

function closestSpelling(given: string, candidates: readonly string[]): string | undefined {
  const wanted = given.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.ceil(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const lower = candidate.toLowerCase();
    // "tench" for "tench, Tinca tinca": a whole synonym is nearer than any spelling.
    const distance = lower.split(/,\s*/).includes(wanted) ? 0 : editDistance(wanted, lower, bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** "conf_thres" for "confidence", both "conf_thres" and "iou_thres" for "threshold"; none where too many fit. */
function sharingMostWords(given: string, candidates: readonly string[]): string[] {
  const wanted = wordsOf(given);
  const shared = candidates.map((candidate) => {
    const words = wordsOf(candidate);
    return wanted.filter((word) => words.some((other) => isAlike(word, other))).length;
  });
  const most = Math.max(0, ...shared);
  const best = most === 0 ? [] : candidates.filter((_, index) => shared[index] === most);
  return best.length <= 2 ? best : [];
}

function wordsOf(name: string): string[] {
  return name
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter(Boolean);
}

function isAlike(word: string, other: string): boolean {
  const [short, long] = word.length < other.length ? [word, other] : [other, word];
  return short.length >= MIN_SHARED_BEGINNING && long.startsWith(short);
}

/** Levenshtein distance; `limit` stands for every distance that is not below it. */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const replaced = previous[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}
