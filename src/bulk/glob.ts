/**
 * Patterns for paths, matched without backtracking: whatever the pattern, a path costs its length times the pattern's.
 * A pattern comes from clients, and a matcher that tries one way after the other can take for ever on a long name.
 */
import { BadInputError } from "../errors.ts";

const MAX_PATTERN = 300;

/** A state takes a character that `takes` accepts and continues to `next`; one without `takes` continues to all of `to` at once. */
type State = { takes: (code: number) => boolean; next: number } | { to: number[] };

/**
 * `*` any characters of a name, `**` any folders, `?` one character, `[a-z]` and `[!a-z]` one of a set, `{a,b}` one of
 * several, `?(a|b)`, `*(…)`, `+(…)` and `@(…)` so many of them; `\` takes a special meaning away. Upper and lower case
 * are the same. A pattern without "/" is matched with the name alone.
 * @throws BadInputError where it is no such pattern
 */
export function compileGlob(glob: string): (path: string) => boolean {
  if (glob === "" || glob.startsWith("/") || glob.split("/").includes("..")) {
    throw new BadInputError(
      `glob must be a pattern for paths below the folder, such as "2024/**/*.jpg", got ${JSON.stringify(glob)}`,
    );
  }
  if (glob.length > MAX_PATTERN)
    throw new BadInputError(`glob must be up to ${MAX_PATTERN} characters long, got ${glob.length}`);
  const isNameOnly = !glob.includes("/");
  const matcher = new Matcher(new Compiler(glob.toLowerCase()).compile());
  return (path) => {
    const lower = path.toLowerCase();
    return matcher.matches(isNameOnly ? lower.slice(lower.lastIndexOf("/") + 1) : lower);
  };
}

const SLASH = 47;
const notSlash = (code: number) => code !== SLASH;
const anything = () => true;

/** Builds the states from the end of the pattern to its beginning: each part is given the state to continue to. */
class Compiler {
  readonly #glob: string;
  #at = 0;
  readonly #states: State[] = [{ to: [] }];

  constructor(glob: string) {
    this.#glob = glob;
  }

  /** State 0 is the end. */
  compile(): { states: State[]; start: number } {
    const part = this.#readSequence("");
    return { states: this.#states, start: part(0) };
  }

  #add(state: State): number {
    return this.#states.push(state) - 1;
  }

  /** Up to one of the characters of `end`, which is left to be read. */
  #readSequence(end: string): (next: number) => number {
    const parts: ((next: number) => number)[] = [];
    while (this.#at < this.#glob.length && !end.includes(this.#glob[this.#at]!)) parts.push(this.#readPart());
    return (next) => parts.reduceRight((follow, part) => part(follow), next);
  }

  #readPart(): (next: number) => number {
    const char = this.#glob[this.#at]!;
    if ("?*+@!".includes(char) && this.#glob[this.#at + 1] === "(") return this.#readGroup(char);
    if (this.#isGlobstar()) return this.#readGlobstar();
    this.#at++;
    if (char === "*") {
      while (this.#glob[this.#at] === "*") this.#at++;
      return (next) => this.#repeat((again) => this.#add({ takes: notSlash, next: again }), next);
    }
    if (char === "?") return (next) => this.#add({ takes: notSlash, next });
    if (char === "[") return this.#readSet();
    if (char === "{") return this.#readBraces();
    if (char === "\\" && this.#at < this.#glob.length) return this.#literal(this.#glob[this.#at++]!);
    return this.#literal(char);
  }

  #literal(char: string): (next: number) => number {
    const wanted = char.charCodeAt(0);
    return (next) => this.#add({ takes: (code) => code === wanted, next });
  }

  /** As often as it likes, and then on to `next`. */
  #repeat(part: (again: number) => number, next: number): number {
    const loop = { to: [next] };
    const at = this.#add(loop);
    loop.to.push(part(at));
    return at;
  }

  /** Two stars that are a whole part of the path. */
  #isGlobstar(): boolean {
    const before = this.#glob[this.#at - 1];
    const after = this.#glob[this.#at + 2];
    return (
      this.#glob.startsWith("**", this.#at) &&
      (before === undefined || "/{,(|".includes(before)) &&
      (after === undefined || "/},)|".includes(after))
    );
  }

  #readGlobstar(): (next: number) => number {
    this.#at += 2;
    const isInside = this.#glob[this.#at] === "/";
    if (isInside) this.#at++;
    if (!isInside)
      return (next) => this.#repeat((again) => this.#add({ takes: anything, next: again }), next);
    // Any number of folders, each with its slash.
    return (next) =>
      this.#repeat((again) => {
        const slash = this.#add({ takes: (code) => code === SLASH, next: again });
        return this.#repeat((more) => this.#add({ takes: notSlash, next: more }), slash);
      }, next);
  }

  #readGroup(kind: string): (next: number) => number {
    if (kind === "!")
      throw new BadInputError(`glob can't have !(…), got ${JSON.stringify(this.#glob.slice(0, 100))}`);
    this.#at += 2;
    const choices = this.#readChoices("|", ")");
    const one = (next: number) => this.#add({ to: choices.map((choice) => choice(next)) });
    if (kind === "@") return one;
    if (kind === "?") return (next) => this.#add({ to: [next, one(next)] });
    if (kind === "*") return (next) => this.#repeat(one, next);
    return (next) => one(this.#repeat(one, next));
  }

  #readBraces(): (next: number) => number {
    const start = this.#at;
    const choices = this.#readChoices(",", "}");
    // {a} is what it is, as in a shell.
    if (choices.length < 2) {
      const inside = this.#glob.slice(start, this.#at);
      if (/^-?\w+\.\.-?\w+/.test(inside))
        throw new BadInputError(`glob can't have a range such as {1..9}, write [1-9]; got {${inside}`);
      const [only] = choices;
      return (next) => this.#literal("{")(only!(this.#literal("}")(next)));
    }
    return (next) => this.#add({ to: choices.map((choice) => choice(next)) });
  }

  #readChoices(between: string, end: string): ((next: number) => number)[] {
    const choices = [this.#readSequence(between + end)];
    while (this.#glob[this.#at] === between) {
      this.#at++;
      choices.push(this.#readSequence(between + end));
    }
    if (this.#glob[this.#at] !== end)
      throw new BadInputError(
        `glob lacks a ${JSON.stringify(end)}, got ${JSON.stringify(this.#glob.slice(0, 100))}`,
      );
    this.#at++;
    return choices;
  }

  #readSet(): (next: number) => number {
    const end = this.#glob.indexOf("]", this.#at + 1 + ("!^".includes(this.#glob[this.#at] ?? " ") ? 1 : 0));
    if (end < 0) throw new BadInputError(`glob lacks a "]", got ${JSON.stringify(this.#glob.slice(0, 100))}`);
    const isOther = "!^".includes(this.#glob[this.#at]!);
    const inside = this.#glob.slice(this.#at + (isOther ? 1 : 0), end);
    this.#at = end + 1;
    const ranges: [number, number][] = [];
    for (let at = 0; at < inside.length; at++) {
      const from = inside.charCodeAt(at);
      if (inside[at + 1] === "-" && at + 2 < inside.length) {
        ranges.push([from, inside.charCodeAt(at + 2)]);
        at += 2;
      } else ranges.push([from, from]);
    }
    const isIn = (code: number) => ranges.some(([from, to]) => code >= from && code <= to);
    return (next) => this.#add({ takes: (code) => code !== SLASH && isIn(code) !== isOther, next });
  }
}

/** Is in all states at once that the characters so far could lead to. */
class Matcher {
  readonly #states: readonly State[];
  readonly #start: number;
  /** The step in which each state was last entered. */
  readonly #entered: Int32Array;
  #step = 0;

  constructor({ states, start }: { states: readonly State[]; start: number }) {
    this.#states = states;
    this.#start = start;
    this.#entered = new Int32Array(states.length);
  }

  matches(text: string): boolean {
    let current = this.#enter([this.#start]);
    for (let at = 0; at < text.length && current.length > 0; at++) {
      const code = text.charCodeAt(at);
      const following: number[] = [];
      for (const state of current) {
        const known = this.#states[state]!;
        if ("takes" in known && known.takes(code)) following.push(known.next);
      }
      current = this.#enter(following);
    }
    return current.includes(0);
  }

  /** These states and those that they continue to without a character, each once. */
  #enter(from: readonly number[]): number[] {
    const step = ++this.#step;
    const entered: number[] = [];
    const pending = [...from];
    for (let state = pending.pop(); state !== undefined; state = pending.pop()) {
      if (this.#entered[state] === step) continue;
      this.#entered[state] = step;
      entered.push(state);
      const known = this.#states[state]!;
      if ("to" in known) pending.push(...known.to);
    }
    return entered;
  }
}
