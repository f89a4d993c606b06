/** Where in the console the reader is: the part of the address behind "#", so that the server has one page to serve. */

export interface Route {
  /** The parts of the path, decoded. */
  parts: string[];
  query: URLSearchParams;
}

/** `#/models/X?tab=run` → `["models", "X"]` and its query. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter((part) => part !== "");
  return { parts: parts.map(decode), query: new URLSearchParams(query) };
}

export function routeTo(parts: readonly string[], query: Record<string, string | undefined> = {}): string {
  const given = Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const tail = given.length > 0 ? `?${new URLSearchParams(given).toString()}` : "";
  return `#/${parts.map(encodeURIComponent).join("/")}${tail}`;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
