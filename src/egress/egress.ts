/**
 * Requests to addresses that clients named: webhooks and pictures by URL. The
 * address is resolved, checked and connected to in one go, so that no second
 * look-up can lead elsewhere. Redirects are not followed.
 */
import { lookup as lookUp, type LookupAddress } from "node:dns";
import http, { type ClientRequest, type IncomingMessage } from "node:http";
import https from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { callbackify } from "node:util";
import { BadInputError } from "../errors.ts";
import { createAddressFilter, type AddressFilter } from "./addressFilter.ts";

const MAX_URL = 2048;
/** What a name stands for, or that it stands for nothing. Shorter than anybody waits before asking again. */
const LOOKUP_KEPT_MS = 2000;

/** The address isn't public, and the configuration doesn't allow it. */
export class BlockedAddressError extends BadInputError {}

export interface EgressRequest {
  method: "GET" | "POST";
  headers: Record<string, string>;
  body?: string;
  /** From the look-up of the name to the last byte of the answer; whoever reads longer gets an error. */
  timeoutMs: number;
}

export interface Egress {
  /**
   * Sends a request, on a connection of its own; resolves with the head of the answer. The caller reads or destroys it.
   * @throws BlockedAddressError, or the connection's own error
   */
  request(url: URL, options: EgressRequest): Promise<IncomingMessage>;
}

/** Resolves a name to all of its addresses. */
export type Resolve = (hostname: string) => Promise<LookupAddress[]>;

export interface EgressOptions {
  /** Addresses, CIDR blocks and host names that are allowed though they aren't public. */
  allow: readonly string[];
  /** The setting that `allow` comes from, for the error that says what to do. */
  allowKey: string;
  /** Default: what the operating system says. */
  resolve?: Resolve;
}

export function createEgress({ allow, allowKey, resolve = resolveOnce() }: EgressOptions): Egress {
  const filter = createAddressFilter(allow);
  const lookup = checkedLookup(filter, allowKey, resolve);
  return {
    async request(url, { method, headers, body, timeoutMs }) {
      const hostname = url.hostname.replace(/^\[|\]$/g, "");
      // An address in the URL is connected to without a look-up.
      if (isIP(hostname) && !filter.allowsAddress(hostname)) throw blocked(hostname, allowKey);
      const { request } = url.protocol === "https:" ? https : http;
      const outgoing = request(url, {
        method,
        headers: { ...headers, ...(body !== undefined && { "Content-Length": Buffer.byteLength(body) }) },
        agent: false,
        lookup,
      });
      let underWay: ClientRequest | IncomingMessage = outgoing;
      const timer = setTimeout(
        () => underWay.destroy(new Error(`no complete answer within ${timeoutMs / 1000} s`)),
        timeoutMs,
      );
      outgoing.once("close", () => clearTimeout(timer));
      return new Promise((resolveHead, reject) => {
        outgoing.on("error", reject);
        // Some ends come without an error, such as a switch of protocols that nobody asked for.
        outgoing.once("close", () => reject(new Error("the connection was closed without an answer")));
        outgoing.once("response", (answer) => {
          underWay = answer;
          // For a caller that has read enough when the connection breaks.
          answer.on("error", () => {});
          resolveHead(answer);
        });
        outgoing.end(body);
      });
    },
  };
}

/**
 * Reads a URL that a client gave, as far as it can be judged without a look-up.
 * @param key what the client called it, for the error
 * @throws BadInputError
 */
export function parseOutsideUrl(text: string, key: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const got = JSON.stringify(text.slice(0, 200));
  if (!url || !/^https?:$/.test(url.protocol) || text.length > MAX_URL) {
    throw new BadInputError(
      `${key} must be an http:// or https:// URL of at most ${MAX_URL} characters, got ${got}`,
    );
  }
  // Not repeated in the error, where they would end in logs.
  if (url.username || url.password) throw new BadInputError(`${key} must hold no user name or password`);
  return url;
}

/**
 * Refuses a URL whose address can be judged without a look-up: one that is written in it. What a name stands for is
 * checked when it is connected to.
 * @throws BlockedAddressError
 */
export function refuseForbiddenAddress(
  url: URL,
  { allow, allowKey }: Pick<EgressOptions, "allow" | "allowKey">,
): void {
  const address = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(address) && !createAddressFilter(allow).allowsAddress(address)) throw blocked(address, allowKey);
}

function checkedLookup(filter: AddressFilter, allowKey: string, resolve: Resolve): LookupFunction {
  const resolveChecked = callbackify(async (hostname: string, family: number): Promise<LookupAddress[]> => {
    const addresses = (await resolve(hostname)).filter((address) => !family || address.family === family);
    const allowed = filter.allowsHost(hostname)
      ? addresses
      : addresses.filter(({ address }) => filter.allowsAddress(address));
    if (allowed.length === 0) throw blocked(hostname, allowKey);
    return allowed;
  });
  return (hostname, { all, family }, callback) =>
    resolveChecked(hostname, Number(family ?? 0), (error, addresses) => {
      if (error) callback(error, []);
      else if (all) callback(null, addresses);
      else callback(null, addresses[0]!.address, addresses[0]!.family);
    });
}

/** The address itself is not told: it would map the inside of a network to whoever asks. */
function blocked(hostname: string, allowKey: string): BlockedAddressError {
  return new BlockedAddressError(
    `${hostname} is no public address; if it may be reached, add it to ${allowKey} in the configuration`,
  );
}

/** One look-up a name at a time: each takes a thread of a small pool, and a name server that is away holds it for long. */
function resolveOnce(): Resolve {
  const known = new Map<string, Promise<LookupAddress[]>>();
  return (hostname) => {
    const before = known.get(hostname);
    if (before) return before;
    const resolving = new Promise<LookupAddress[]>((resolve, reject) =>
      lookUp(hostname, { all: true }, (error, addresses) => {
        setTimeout(() => known.delete(hostname), LOOKUP_KEPT_MS).unref();
        if (error) reject(error);
        else resolve(addresses);
      }),
    );
    known.set(hostname, resolving);
    return resolving;
  };
}
