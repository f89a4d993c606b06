/**
 * JSON at the edges of the system, where numbers that clients echo must not change. A number that JavaScript can't hold
 * (9007199254740993, 1e400) travels inside as a string: U+FDD0, which is no character of any text, and the number as it
 * was written. Whatever passes it on, in Redis, to an engine and back, needs no care. What comes from outside is read by
 * `parseJson`, what goes out is written by `formatJson`; in between, plain JSON.
 */

const MARK = "\uFDD0";
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** Whether to look closer: a long number or a large exponent. Base64 never matches, as nothing stands before a number there. */
const SUSPECT = /(?:^|[[\s:,])-?(?:\d{16}|\d+(?:\.\d+)?[eE][+-]?\d{3})/;
const MARKED = /"\uFDD0(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"/g;
const STRAY = /\uFDD0(?=[-\d])/g;

/** Lists and objects inside one another; whatever walks a value recurses, and deeper ones would end its stack. */
export const MAX_DEPTH = 100;

/** JSON that nests deeper than anything here does. */
export class TooDeepError extends SyntaxError {
  constructor() {
    super(`must not nest deeper than ${MAX_DEPTH} levels`);
  }
}

/**
 * Reads JSON; a number that would change becomes a marked string.
 * @throws SyntaxError as JSON.parse does, TooDeepError
 */
export function parseJson(text: string): unknown {
  // First as it is, so that an error has the right place.
  const value: unknown = JSON.parse(text);
  checkDepth(value, MAX_DEPTH);
  if (!SUSPECT.test(text)) return value;
  const marked = markNumbers(text);
  return marked === text ? value : JSON.parse(marked);
}

/** @throws TooDeepError */
function checkDepth(value: unknown, left: number): void {
  if (typeof value !== "object" || value === null) return;
  if (left === 0) throw new TooDeepError();
  // Most elements are numbers or texts: no call for those.
  if (Array.isArray(value)) {
    for (const each of value as unknown[])
      if (typeof each === "object" && each !== null) checkDepth(each, left - 1);
    return;
  }
  for (const key in value) {
    const each = (value as Record<string, unknown>)[key];
    if (typeof each === "object" && each !== null) checkDepth(each, left - 1);
  }
}

/** Writes JSON; marked strings become the numbers that they were. */
export function formatJson(value: unknown, indent?: number): string {
  return restoreNumbers(indent === undefined ? JSON.stringify(value) : JSON.stringify(value, null, indent));
}

/** The same for text that JSON.stringify has written. */
export function restoreNumbers(json: string): string {
  if (!json.includes(MARK)) return json;
  // Inside a longer text, such as an error's, the number stands there by itself.
  return json.replaceAll(MARKED, "$1").replaceAll(STRAY, "");
}

/** The whole number that a value is, where a number can't hold it exactly; undefined for everything else. */
export function exactInteger(value: unknown): bigint | undefined {
  if (typeof value !== "string" || !value.startsWith(MARK)) return undefined;
  const text = value.slice(MARK.length);
  return /^-?\d+$/.test(text) ? BigInt(text) : undefined;
}

/** Puts numbers that would change into marked strings; strings are passed over, however long. */
function markNumbers(json: string): string {
  const parts: string[] = [];
  let at = 0;
  while (at < json.length) {
    const quote = json.indexOf('"', at);
    const end = quote < 0 ? json.length : quote;
    parts.push(
      json.slice(at, end).replaceAll(NUMBER, (number) => (changes(number) ? `"${MARK}${number}"` : number)),
    );
    if (quote < 0) break;
    at = endOfString(json, quote);
    parts.push(json.slice(quote, at));
  }
  return parts.join("");
}

/** Behind the quote that ends the string which begins at `quote`. */
function endOfString(json: string, quote: number): number {
  for (let at = json.indexOf('"', quote + 1); at >= 0; at = json.indexOf('"', at + 1)) {
    let backslashes = 0;
    while (json[at - 1 - backslashes] === "\\") backslashes++;
    if (backslashes % 2 === 0) return at + 1;
  }
  return json.length;
}

/** Digits behind the seventeenth are nobody's: a fraction counts as unchanged where it is the nearest that there is. */
function changes(number: string): boolean {
  const value = Number(number);
  if (!Number.isFinite(value)) return true;
  if (value === 0) return /[1-9]/.test(number.replace(/[eE].*/, ""));
  const isWhole = /^-?\d+$/.test(number);
  if (isWhole) return !Number.isSafeInteger(value) && BigInt(number) !== BigInt(value);
  return !/[eE]/.test(number) && Math.abs(value) > Number.MAX_SAFE_INTEGER;
}
