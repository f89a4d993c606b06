/** Links in what the api answers, written below the path under which clients reach it. */

/** What is the loader's or the client's own, whatever its keys are called. */
const FOREIGN: ReadonlySet<string> = new Set(["result", "response", "request", "tensors", "facts", "error"]);

/** A copy in which each path under `links`, `url` or `href` begins with `publicPath`. */
export function withPublicPath<T>(body: T, publicPath: string): T {
  return publicPath === "" ? body : (linked(body, publicPath, false) as T);
}

function linked(value: unknown, publicPath: string, isLink: boolean): unknown {
  if (typeof value === "string") return isLink && value.startsWith("/") ? publicPath + value : value;
  if (Array.isArray(value)) {
    // Numbers of a tensor can be many.
    return typeof value[0] === "object" ? value.map((each) => linked(each, publicPath, false)) : value;
  }
  if (typeof value !== "object" || value === null || !isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key,
      FOREIGN.has(key) ? inner : linked(inner, publicPath, isLink || LINKS.has(key)),
    ]),
  );
}

const LINKS: ReadonlySet<string> = new Set(["links", "url", "href"]);

/** Exact numbers are objects of their own class. */
function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** The same for lines of a bulk run's results, which are text. */
export function linesWithPublicPath(text: string, run: string, publicPath: string): string {
  const own = `"url":"/v1/bulk/${run}/`;
  return publicPath === "" ? text : text.replaceAll(own, own.replace("/v1", `${publicPath}/v1`));
}
