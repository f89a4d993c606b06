/**
 * How the configuration names a Redis: a URL that says where it is, who asks, which Sentinels know it or which nodes of
 * a cluster, and the files of TLS. Whatever is wrong with them is found before the first connection, and said without a password in it.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { ConfigError, type ConfigFault } from "../errors.ts";

const REDIS_PORT = 6379;
const SENTINEL_PORT = 26_379;

export interface HostAndPort {
  host: string;
  port: number;
}

/** What a `redis_url` says. */
export interface RedisTarget {
  /** The URL as it may be logged: without names of users and passwords. */
  shown: string;
  /** The server, its Sentinels, or some nodes of its cluster; none where it listens on a socket. */
  hosts: readonly HostAndPort[];
  isCluster: boolean;
  socketPath: string | undefined;
  sentinel: { master: string; username: string | undefined; password: string | undefined } | undefined;
  isTls: boolean;
  username: string | undefined;
  password: string | undefined;
  db: number;
  /** IP version of its addresses; 0 for both. */
  family: number;
}

const SCHEMES: ReadonlySet<string> = new Set([
  "redis",
  "rediss",
  "redis+sentinel",
  "rediss+sentinel",
  "redis+cluster",
  "rediss+cluster",
  "unix",
]);
const SCHEME_NAMES =
  "redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster:// or unix://";
const SENTINEL_FORM = "redis+sentinel://host:26379,host:26379/master";
const CLUSTER_FORM = "redis+cluster://host:6379,host:6379";

export const redisUrlSchema = z
  .string()
  .superRefine((url, context) => {
    const read = readRedisUrl(url);
    if (typeof read === "string") context.addIssue({ code: "custom", message: read, input: url });
  })
  .meta({
    description:
      "Redis to use: redis://user:password@host:6379/0, rediss://… for TLS, redis+sentinel://host:26379,host:26379/master (rediss+sentinel:// with TLS), redis+cluster://host:6379,host:6379 (rediss+cluster:// with TLS), or unix:///path/redis.sock?db=1. Default: an embedded server. Environment: REDIS_URL.",
    pattern: "^(rediss?(\\+(sentinel|cluster))?|unix)://",
  });

const file = z.string().min(1);

export const redisTlsSchema = z
  .strictObject({
    ca: file.optional().meta({
      description:
        "PEM file with the certificates of the authorities that may have signed the server's. Default: those that Node knows.",
    }),
    cert: file
      .optional()
      .meta({ description: "PEM file with the certificate that this client shows; needs `key`." }),
    key: file
      .optional()
      .meta({ description: "PEM file with the private key of `cert`, without a passphrase." }),
    servername: z.string().min(1).optional().meta({
      description:
        "Name that the server's certificate must have, sent to it as SNI. Default: the host of redis_url; with Sentinels or a cluster, the address that those name.",
    }),
  })
  .meta({
    description:
      "TLS to Redis and its Sentinels, with a redis_url that begins with rediss://, rediss+sentinel:// or rediss+cluster://. Paths are relative to the configuration; the files are read again for each new connection.",
  });

export type RedisTls = Readonly<z.output<typeof redisTlsSchema>>;

/** Why `redis_tls` doesn't fit `redis_url`; undefined where it does. */
export function tlsMismatch(url: string | undefined): string | undefined {
  const target = url === undefined ? undefined : readRedisUrl(url);
  // A faulty URL has its own line.
  if (typeof target === "string" || target?.isTls) return undefined;
  return "needs a redis_url (or REDIS_URL) that begins with rediss://, rediss+sentinel:// or rediss+cluster://; without it nothing would be encrypted";
}

/** @throws ConfigError where it is none */
export function parseRedisUrl(url: string): RedisTarget {
  const read = readRedisUrl(url);
  if (typeof read === "string") throw new ConfigError([{ source: "Redis", key: "redis_url", problem: read }]);
  return read;
}

/** What a URL says, or what is wrong with it, in words without any of its parts: each may be a piece of a password. */
export function readRedisUrl(url: string): RedisTarget | string {
  const scheme = /^([a-z+-]+):\/\//i.exec(url)?.[1]?.toLowerCase();
  if (scheme === undefined || !SCHEMES.has(scheme)) return unknownScheme(scheme ?? "");
  const isSentinel = scheme.endsWith("+sentinel");
  const isCluster = scheme.endsWith("+cluster");
  const isSocket = scheme === "unix";
  // The last @ ends the password, as in all clients of Redis: in many a URL it isn't percent-encoded.
  const parts = /^(?:([^/?#]*)@)?([^/?#]*)([^?#]*)(?:\?([^#]*))?$/.exec(url.slice(scheme.length + 3));
  if (!parts) return "must not have a # in it; percent-encode it (%23)";
  const [, login = "", authority = "", path = "", query = ""] = parts;
  const form = isSentinel ? SENTINEL_FORM : isCluster ? CLUSTER_FORM : undefined;
  if (form !== undefined && login.includes("@"))
    return `must have user name and password once, before the first host, with each @ in them percent-encoded (%40): ${form}`;
  if (isCluster && path.length > 1)
    return `must not name a database: a Redis Cluster has one only. It is written ${CLUSTER_FORM}`;
  try {
    const parameters = parametersOf(query, parametersFor(scheme));
    const hosts = isSocket
      ? noHosts(authority)
      : hostsOf(authority, isSentinel ? SENTINEL_PORT : REDIS_PORT, form);
    const [, master = "", dbInPath] = isSentinel
      ? (/^\/([^/]+)(?:\/([^/]*))?$/.exec(path) ?? [])
      : ["", "", path.slice(1)];
    if (isSentinel && master === "")
      return `must name the master that the Sentinels watch, as in ${SENTINEL_FORM}`;
    if (isSocket && path.length < 2) return "must name a socket, as in unix:///path/redis.sock";
    const colon = login.includes(":") ? login.indexOf(":") : login.length;
    return {
      shown: `${scheme}://${authority}${path}`,
      hosts,
      isCluster,
      socketPath: isSocket ? decode(path) : undefined,
      sentinel: isSentinel
        ? {
            master: decode(master),
            username: parameters.get("sentinel_username"),
            password: parameters.get("sentinel_password"),
          }
        : undefined,
      isTls: scheme.startsWith("rediss"),
      username: decode(login.slice(0, colon)) || undefined,
      password: decode(login.slice(colon + 1)) || undefined,
      db: numberOf("database", isSocket ? undefined : dbInPath, parameters.get("db")) ?? 0,
      family: numberOf("family", parameters.get("family")) ?? 0,
    };
  } catch (error) {
    if (error instanceof UrlFault) return error.message;
    throw error;
  }
}

class UrlFault extends Error {}

function parametersFor(scheme: string): readonly string[] {
  if (scheme === "unix") return ["db"];
  if (scheme.endsWith("+cluster")) return ["family"];
  const parameters = ["db", "family"];
  return scheme.endsWith("+sentinel")
    ? [...parameters, "sentinel_username", "sentinel_password"]
    : parameters;
}

function unknownScheme(scheme: string): string {
  const rule = `must begin with ${SCHEME_NAMES}`;
  if (scheme.includes("cluster")) return `${rule}; a cluster is written ${CLUSTER_FORM}`;
  if (scheme.includes("sentinel")) return `${rule}; Sentinels are written ${SENTINEL_FORM}`;
  if (/socket|unix/.test(scheme)) return `${rule}; a socket is written unix:///path/redis.sock`;
  return rule;
}

function noHosts(authority: string): [] {
  if (authority === "") return [];
  throw new UrlFault("must have three slashes before the path of a socket, as in unix:///path/redis.sock");
}

/** @param form how a URL with several hosts is written; undefined where there must be one */
function hostsOf(authority: string, usualPort: number, form: string | undefined): HostAndPort[] {
  const hosts = authority.split(",").map((text) => {
    const [, host, port = String(usualPort)] = /^(\[[0-9a-f:.]+\]|[^:[\]]*)(?::(\d+))?$/i.exec(text) ?? [];
    if (host === undefined || Number(port) < 1 || Number(port) > 65_535)
      throw new UrlFault(
        "must have a host and a port from 1 to 65535 (host:6379, [::1]:6379) before its path; percent-encode / ? # in a password (%2F %3F %23)",
      );
    if (form !== undefined && host === "") throw new UrlFault(`must name its hosts, as in ${form}`);
    return { host: decode(host.replace(/^\[|\]$/g, "")) || "localhost", port: Number(port) };
  });
  if (form === undefined && hosts.length > 1)
    throw new UrlFault(
      `must name one host; several are for Sentinels (${SENTINEL_FORM}) or a cluster (${CLUSTER_FORM})`,
    );
  return hosts;
}

function parametersOf(query: string, known: readonly string[]): Map<string, string> {
  const parameters = new Map<string, string>();
  for (const part of query.split("&").filter(Boolean)) {
    const equals = part.includes("=") ? part.indexOf("=") : part.length;
    const name = part.slice(0, equals);
    if (!known.includes(name) || parameters.has(name))
      throw new UrlFault(`must not have other parameters behind its ? than ${known.join(", ")}, each once`);
    // Not URLSearchParams, to which a + is a space.
    parameters.set(name, decode(part.slice(equals + 1)));
  }
  return parameters;
}

function numberOf(what: string, ...texts: (string | undefined)[]): number | undefined {
  const given = texts.filter((text) => text !== undefined && text !== "");
  if (given.length > 1) throw new UrlFault(`must name its ${what} once, in its path or behind its ?`);
  const [text] = given;
  if (text === undefined) return undefined;
  const isKnown = what === "family" ? /^[046]$/.test(text) : /^\d{1,5}$/.test(text);
  if (isKnown) return Number(text);
  throw new UrlFault(
    what === "family"
      ? "must have a family of 4, 6 or 0 (both)"
      : "must have the number of a database as its path, or none",
  );
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new UrlFault("must have a % in a password percent-encoded (%25)");
  }
}

/** With absolute paths. */
export function resolveRedisTls(tls: RedisTls, folder: string): RedisTls {
  const files = (["ca", "cert", "key"] as const).filter((key) => tls[key] !== undefined);
  return { ...tls, ...Object.fromEntries(files.map((key) => [key, resolve(folder, tls[key]!)])) };
}

/** Reads the files of `redis_tls`, which stand relative to the configuration. */
export async function checkRedisTls(given: RedisTls, source: string): Promise<ConfigFault[]> {
  const tls = resolveRedisTls(given, dirname(source));
  const faults: ConfigFault[] = [];
  async function read<T>(key: "ca" | "cert" | "key", parse: (text: string) => T): Promise<T | undefined> {
    const path = tls[key];
    if (path === undefined) return undefined;
    try {
      return parse(await readFile(path, "utf8"));
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const problem =
        code === "ENOENT"
          ? `names ${path}, which is not there`
          : `names ${path}, which can't be used as ${key === "key" ? "a private key" : "certificates"} in PEM: ${message}`;
      faults.push({ source, key: `redis_tls.${key}`, problem });
      return undefined;
    }
  }
  const [, [certificate] = [], key] = await Promise.all([
    read("ca", certificatesOf),
    read("cert", certificatesOf),
    read("key", (text) => {
      if (text.includes("ENCRYPTED"))
        throw new Error("it has a passphrase; keep it without one, readable by this user only");
      return createPrivateKey(text);
    }),
  ]);
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    const missing = tls.cert === undefined ? "cert" : "key";
    faults.push({
      source,
      key: `redis_tls.${missing}`,
      problem: "is missing: a certificate of this client needs both cert and key",
    });
  }
  if (certificate && key && !certificate.checkPrivateKey(key))
    faults.push({ source, key: "redis_tls.key", problem: "is not the private key of redis_tls.cert" });
  if (certificate && Date.parse(certificate.validTo) < Date.now())
    faults.push({
      source,
      key: "redis_tls.cert",
      problem: `has expired, on ${new Date(certificate.validTo).toISOString()}`,
    });
  return faults;
}

function certificatesOf(text: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^]+?-----END CERTIFICATE-----/g);
  if (!blocks) throw new Error("there is no BEGIN CERTIFICATE in it");
  return blocks.map((block) => new X509Certificate(block));
}
