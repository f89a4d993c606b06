/** Calls of the HTTP API, and state that follows what it answers. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "../core/problem.ts";

/** The server's address as the page knows it, ending in "/". */
export const SERVER = new URL(".", document.baseURI).href;

/** A refusal, or `status` 0 where nobody answered, -1 where nobody was asked. */
export class CallError extends Error {
  readonly status: number;
  readonly title: string;
  readonly problem: Partial<Problem>;

  constructor(status: number, problem: Partial<Problem>) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.title = problem.title ?? (status === 0 ? "The server can't be reached" : `HTTP ${status}`);
    this.problem = problem;
  }
}

/** A link of an answer, wherever the server believes to be: what it points to is below this server. */
export function resolveLink(link: string): string {
  const at = link.indexOf("/v1/");
  return new URL(at < 0 ? link.replace(/^\//, "") : link.slice(at + 1), SERVER).href;
}

/** The path of something below `/v1`, and a query of what is given. */
export function pathOf(
  parts: readonly (string | number)[],
  query: Record<string, string | number | boolean | undefined> = {},
): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const path = `v1/${parts.map((part) => encodeURIComponent(part)).join("/")}`;
  const tail = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return tail === "" ? path : `${path}?${tail}`;
}

interface CallOptions {
  method?: "GET" | "POST" | "DELETE";
  /** Sent as JSON, unless it is a file or a form. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

let onUnauthorized = (): void => {};

/** Who is notified when the server wants a key. */
export function whenUnauthorized(notify: () => void): void {
  onUnauthorized = notify;
}

/**
 * The answer's JSON; undefined where it has none.
 * @throws CallError
 */
export async function call<T>(
  path: string,
  { method = "GET", body, headers, signal }: CallOptions = {},
): Promise<T> {
  const isJson = body !== undefined && !(body instanceof Blob) && !(body instanceof FormData);
  let answer: Response;
  try {
    answer = await fetch(new URL(path, SERVER), {
      method,
      headers: {
        // Or a server without HTTPS would have the browser ask for a password.
        "X-Requested-With": "infermill-console",
        ...(isJson && { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body !== undefined && { body: isJson ? JSON.stringify(body) : (body as BodyInit) }),
      ...(signal && { signal }),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CallError(0, {
      detail: "The server can't be reached. It is asked again as soon as it answers.",
    });
  }
  if (answer.status === 204) return undefined as T;
  const content = (await answer.json().catch(() => undefined)) as T | undefined;
  if (answer.ok && content !== undefined) return content;
  if (answer.status === 401) onUnauthorized();
  throw new CallError(answer.status, content ?? {});
}

/** What was thrown, as a refusal. */
export function callErrorOf(reason: unknown): CallError {
  if (reason instanceof CallError) return reason;
  return new CallError(-1, { title: "Something went wrong on this page", detail: String(reason) });
}

/** Whether a part of the API is not there on this server. */
export function isMissing(error: unknown): boolean {
  return error instanceof CallError && (error.status === 404 || error.status === 405);
}

export interface Loaded<T> {
  data: T | undefined;
  /** Of the last try; `data` is the last that came. */
  error: CallError | undefined;
  reload: () => void;
}

/**
 * What a path answers, asked for again every `everyMs` while the page can be seen, until `isDone`.
 * @param path undefined: nothing is asked for
 */
export function useAnswer<T>(
  path: string | undefined,
  { everyMs, isDone }: { everyMs?: number; isDone?: (data: T) => boolean } = {},
): Loaded<T> {
  const [state, setState] = useState<{ path?: string | undefined; data?: T; error?: CallError }>({});
  const [turn, setTurn] = useState(0);
  const done = useRef(isDone);
  done.current = isDone;
  const reload = useCallback(() => setTurn((count) => count + 1), []);

  useEffect(() => {
    if (path === undefined) return undefined;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const later = (ms: number) => {
      if (!stop.signal.aborted) timer = setTimeout(load, ms);
    };
    const load = async () => {
      if (document.hidden) return later(500);
      try {
        const data = await call<T>(path, { signal: stop.signal });
        setState({ path, data });
        if (everyMs !== undefined && !done.current?.(data)) later(everyMs);
      } catch (error) {
        if (stop.signal.aborted) return;
        const refusal = callErrorOf(error);
        setState((last) => ({ ...(last.path === path && last), path, error: refusal }));
        if (refusal.status === 0 || (everyMs !== undefined && refusal.status >= 500))
          later(Math.max(2000, everyMs ?? 0));
      }
    };
    void load();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs, turn]);

  const isCurrent = state.path === path;
  return {
    data: isCurrent ? state.data : undefined,
    error: isCurrent ? state.error : undefined,
    reload,
  };
}

/**
 * Server-sent events, until `isLast`. The browser connects again by itself.
 * @param path undefined: nothing is followed
 */
export function useEvents<T>(
  path: string | undefined,
  event: string,
  onData: (data: T) => void,
  isLast: (data: T) => boolean,
): void {
  const handlers = useRef({ onData, isLast });
  handlers.current = { onData, isLast };
  useEffect(() => {
    if (path === undefined) return undefined;
    const source = new EventSource(new URL(path, SERVER));
    source.addEventListener(event, (message) => {
      const data = JSON.parse((message as MessageEvent<string>).data) as T;
      handlers.current.onData(data);
      if (handlers.current.isLast(data)) source.close();
    });
    return () => source.close();
  }, [path, event]);
}

/** What a path answers, kept up to date by its events, and read once more when it has ended. */
export function useFollowed<T extends { status: string }>(
  path: string,
  event: string,
  hasEnded: (status: T["status"]) => boolean,
): Loaded<T> {
  const { data, error, reload } = useAnswer<T>(path);
  const [last, setLast] = useState<{ since: T | undefined; state: T }>();
  useEvents<T>(
    data && !hasEnded(data.status) ? `${path}/events` : undefined,
    event,
    (state) => {
      setLast({ since: data, state });
      // Events lack what only a reading has.
      if (hasEnded(state.status)) reload();
    },
    ({ status }) => hasEnded(status),
  );
  // A later reading is newer than the events before it.
  return { data: last && last.since === data ? last.state : data, error, reload };
}

interface Pages<P, T> extends Loaded<P> {
  /** Of all pages that were asked for, each once. */
  items: T[];
  /** Asks for the page behind those; undefined where there is none. */
  more: (() => void) | undefined;
  isLoadingMore: boolean;
  moreError: CallError | undefined;
}

/**
 * A list that comes in pages: the first is asked for as `useAnswer` does, the others once.
 * @param pathOfPage must change with what is listed, and only with that
 */
export function usePages<P extends { next_cursor: string | null }, T>(
  pathOfPage: (cursor?: string) => string,
  itemsOf: (page: P) => readonly T[],
  keyOf: (item: T) => string | number,
  { everyMs }: { everyMs?: number } = {},
): Pages<P, T> {
  const path = pathOfPage();
  const first = useAnswer<P>(path, everyMs === undefined ? {} : { everyMs });
  const [later, setLater] = useState<{ path: string; pages: P[] }>({ path, pages: [] });
  const pages = [...(first.data ? [first.data] : []), ...(later.path === path ? later.pages : [])];
  const cursor = pages.at(-1)?.next_cursor;
  const load = useAction(async () => {
    const page = await call<P>(pathOfPage(cursor!));
    setLater((last) => ({ path, pages: [...(last.path === path ? last.pages : []), page] }));
  });
  const items = new Map<string | number, T>();
  // What moved on meanwhile may be on two pages: the first one is the newest.
  for (const item of pages.flatMap(itemsOf)) if (!items.has(keyOf(item))) items.set(keyOf(item), item);
  return {
    ...first,
    items: [...items.values()],
    more: cursor ? () => load.run() : undefined,
    isLoadingMore: load.isBusy,
    moreError: load.error,
  };
}

/** Something that a button does: whether it is under way, and why it failed. */
export function useAction<A extends unknown[]>(
  act: (...args: A) => Promise<void>,
): { run: (...args: A) => void; isBusy: boolean; error: CallError | undefined; clear: () => void } {
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<CallError>();
  const latest = useRef(act);
  latest.current = act;
  const run = useCallback((...args: A) => {
    setBusy(true);
    setError(undefined);
    latest
      .current(...args)
      .catch((reason: unknown) => setError(callErrorOf(reason)))
      .finally(() => setBusy(false));
  }, []);
  const clear = useCallback(() => setError(undefined), []);
  return { run, isBusy, error, clear };
}
