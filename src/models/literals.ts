/**
 * Reads the lists and dictionaries that exporters write into a model's
 * metadata: JSON, or the way Python prints them (`{0: 'person', 1: "driver's"}`).
 */

export type Literal = string | number | boolean | null | Literal[] | { [key: string]: Literal };

const WORDS: Readonly<Record<string, Literal>> = {
  True: true,
  true: true,
  False: false,
  false: false,
  None: null,
  null: null,
};
const ESCAPES: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f", "0": "\0" };

/** @returns undefined where the text is none of these; Python's tuples are lists, numbers as keys are strings. */
export function readLiteral(text: string): Literal | undefined {
  let at = 0;
  const skipSpace = () => {
    while (/\s/.test(text[at] ?? "")) at++;
  };
  const take = (sign: string) => {
    skipSpace();
    if (text[at] !== sign) return false;
    at++;
    return true;
  };
  const fail = (): never => {
    throw new SyntaxError();
  };

  const readString = (): string => {
    const quote = text[at++]!;
    let value = "";
    for (;;) {
      const sign = text[at++] ?? fail();
      if (sign === quote) return value;
      if (sign !== "\\") value += sign;
      else {
        const escaped = text[at++] ?? fail();
        const digits = { x: 2, u: 4, U: 8 }[escaped];
        if (digits === undefined) value += ESCAPES[escaped] ?? escaped;
        else {
          const code = text.slice(at, at + digits);
          if (!/^[\da-f]+$/i.test(code) || code.length < digits) fail();
          value += String.fromCodePoint(Number.parseInt(code, 16));
          at += digits;
        }
      }
    }
  };
  const readItems = (end: string, readItem: () => void) => {
    while (!take(end)) {
      readItem();
      if (!take(",")) {
        if (!take(end)) fail();
        return;
      }
    }
  };
  const readValue = (): Literal => {
    skipSpace();
    const sign = text[at] ?? fail();
    if (sign === '"' || sign === "'") return readString();
    if (sign === "[" || sign === "(") {
      at++;
      const items: Literal[] = [];
      readItems(sign === "[" ? "]" : ")", () => items.push(readValue()));
      return items;
    }
    if (sign === "{") {
      at++;
      const entries: [string, Literal][] = [];
      readItems("}", () => {
        const key = readValue();
        if ((typeof key === "object" && key !== null) || !take(":")) fail();
        entries.push([`${key as string | number}`, readValue()]);
      });
      return Object.fromEntries(entries);
    }
    const word = /^[\w.+-]+/.exec(text.slice(at, at + 40))?.[0] ?? fail();
    at += word.length;
    if (Object.hasOwn(WORDS, word)) return WORDS[word]!;
    const number = Number(word);
    return Number.isNaN(number) ? fail() : number;
  };

  try {
    const value = readValue();
    skipSpace();
    return at === text.length ? value : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) return undefined;
    throw error;
  }
}
