/** Where a text stops being JSON. V8 doesn't always tell, so this reads it once more, from left to right and without recursion. */

const [PLUS, MINUS, DOT, ZERO, LETTER_E] = [43, 45, 46, 48, 101];
const ESCAPED = new Set('"\\/bfnrt');

type Expected = "value" | "value or end" | "key" | "key or end" | "colon" | "comma or end" | "nothing";

/** The length of the longest beginning that could still become JSON. */
export function findJsonFault(text: string): number {
  const open: ("{" | "[")[] = [];
  let expected: Expected = "value";
  let at = 0;
  const afterValue = (): Expected => (open.length === 0 ? "nothing" : "comma or end");

  for (;;) {
    while (isSpace(text.charCodeAt(at))) at++;
    if (at >= text.length) return text.length;
    const char = text[at]!;
    switch (expected) {
      case "nothing":
        return at;
      case "colon":
        if (char !== ":") return at;
        expected = "value";
        at++;
        break;
      case "comma or end": {
        const isObject = open.at(-1) === "{";
        if (char === ",") expected = isObject ? "key" : "value";
        else if (char === (isObject ? "}" : "]")) {
          open.pop();
          expected = afterValue();
        } else return at;
        at++;
        break;
      }
      case "key":
      case "key or end": {
        if (char === "}" && expected === "key or end") {
          open.pop();
          expected = afterValue();
          at++;
          break;
        }
        if (char !== '"') return at;
        const key = readString(text, at);
        if (key < 0) return ~key;
        at = key;
        expected = "colon";
        break;
      }
      default: {
        if (char === "]" && expected === "value or end") {
          open.pop();
          expected = afterValue();
          at++;
        } else if (char === "{" || char === "[") {
          open.push(char);
          expected = char === "{" ? "key or end" : "value or end";
          at++;
        } else {
          const value = char === '"' ? readString(text, at) : readPlain(text, at, char);
          if (value < 0) return ~value;
          at = value;
          expected = afterValue();
        }
      }
    }
  }
}

/** Behind a token, or, as the complement (`~at`, below 0), where it stops being one: a megabyte has too many for objects. */
type Token = number;

function readString(text: string, start: number): Token {
  let at = start + 1;
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 34) return at + 1;
    if (code < 32) return ~at;
    if (code !== 92) continue;
    at++;
    const escaped = text[at];
    if (escaped === "u") {
      for (let digit = 1; digit <= 4; digit++) {
        at++;
        if (at < text.length && !/[0-9a-fA-F]/.test(text[at]!)) return ~at;
      }
    } else if (escaped !== undefined && !ESCAPED.has(escaped)) return ~at;
  }
  return ~text.length;
}

/** A number, or one of the three literals. */
function readPlain(text: string, start: number, first: string): Token {
  if (first === "-" || isDigit(first.charCodeAt(0))) return readNumber(text, start);
  for (const literal of ["true", "false", "null"]) {
    if (literal[0] !== first) continue;
    for (let index = 0; index < literal.length; index++)
      if (text[start + index] !== literal[index]) return ~Math.min(start + index, text.length);
    return start + literal.length;
  }
  return ~start;
}

function readNumber(text: string, start: number): Token {
  const first = text.charCodeAt(start) === MINUS ? start + 1 : start;
  let at = text.charCodeAt(first) === ZERO ? first + 1 : skipDigits(text, first);
  if (at === first) return ~at;
  if (text.charCodeAt(at) === DOT) {
    const fraction = at + 1;
    at = skipDigits(text, fraction);
    if (at === fraction) return ~at;
  }
  if ((text.charCodeAt(at) | 32) === LETTER_E) {
    const sign = text.charCodeAt(at + 1);
    const exponent = at + (sign === PLUS || sign === MINUS ? 2 : 1);
    at = skipDigits(text, exponent);
    if (at === exponent) return ~at;
  }
  return at;
}

function skipDigits(text: string, start: number): number {
  let at = start;
  while (isDigit(text.charCodeAt(at))) at++;
  return at;
}

function isSpace(code: number): boolean {
  return code === 32 || (code <= 13 && (code === 10 || code === 13 || code === 9));
}

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}
