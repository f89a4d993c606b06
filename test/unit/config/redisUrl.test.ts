import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import { parseRedisUrl, readRedisUrl } from "../../../src/config/redis.ts";
import type { ConfigError } from "../../../src/errors.ts";
import { makeCertificates, whyNoOpenssl } from "../../support/certificates.ts";

const folder = mkdtempSync(join(tmpdir(), "redis-url-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("redis_url", () => {
  test.each([
    ["redis://cache", { hosts: [{ host: "cache", port: 6379 }], isTls: false, db: 0 }],
    ["redis://:6380/2", { hosts: [{ host: "localhost", port: 6380 }], db: 2 }],
    ["redis://[::1]:6379?db=3&family=6", { hosts: [{ host: "::1", port: 6379 }], db: 3, family: 6 }],
    ["rediss://app:p%40ss%2Fword@cache:6380", { isTls: true, username: "app", password: "p@ss/word" }],
    ["redis://:p@ss:word@cache", { username: undefined, password: "p@ss:word" }],
    ["redis://app@cache", { username: "app", password: undefined }],
    ["unix:///run/my%20redis.sock?db=1", { socketPath: "/run/my redis.sock", db: 1, hosts: [] }],
    ["unix://app:secret@/run/redis.sock", { socketPath: "/run/redis.sock", username: "app" }],
    [
      "redis+sentinel://app:secret@a:26380,b,[::1]:1/mymaster/4?sentinel_username=s&sentinel_password=x%26+y",
      {
        hosts: [
          { host: "a", port: 26_380 },
          { host: "b", port: 26_379 },
          { host: "::1", port: 1 },
        ],
        sentinel: { master: "mymaster", username: "s", password: "x&+y" },
        username: "app",
        password: "secret",
        db: 4,
        isTls: false,
      },
    ],
    ["rediss+sentinel://a/m", { isTls: true, sentinel: { master: "m" }, isCluster: false }],
    [
      "redis+cluster://app:p%40ss@a:7001,b,[::1]:7003?family=6",
      {
        hosts: [
          { host: "a", port: 7001 },
          { host: "b", port: 6379 },
          { host: "::1", port: 7003 },
        ],
        isCluster: true,
        sentinel: undefined,
        username: "app",
        password: "p@ss",
        db: 0,
        family: 6,
        isTls: false,
      },
    ],
    ["rediss+cluster://a/", { isCluster: true, isTls: true }],
  ])("%s is read", (url, expected) => {
    expect(parseRedisUrl(url)).toMatchObject(expected);
  });

  test.each([
    ["cache:6379", /must begin with redis:/],
    ["redis-cluster://a:7001,b:7001", /a cluster is written redis\+cluster:/],
    ["redis+cluster://a:7001,b:7001/1", /must not name a database/],
    ["redis+cluster://a:7001?db=1", /other parameters behind its \? than family/],
    ["redis+cluster://u:secret@a,u:secret@b", /once, before the first host/],
    ["redis+cluster://:7001", /must name its hosts, as in redis\+cluster:/],
    ["redis-sentinel://a:26379#m", /Sentinels are written redis\+sentinel:/],
    ["redis+socket:///run/redis.sock", /a socket is written unix:/],
    ["redis://a,b", /must name one host; several are for Sentinels/],
    ["redis://a:99999", /a port from 1 to 65535/],
    ["redis://:sec/ret@a", /percent-encode \/ \? # in a password/],
    ["redis://:sec%ret@a", /a % in a password percent-encoded/],
    ["redis://:sec#ret@a", /percent-encode it \(%23\)/],
    ["redis://a/queue", /number of a database/],
    ["redis://a/1?db=2", /database once/],
    ["redis://a?pasword=secret", /other parameters behind its \? than db, family/],
    ["redis+sentinel://a:26379", /must name the master/],
    ["redis+sentinel:///m", /must name its hosts, as in redis\+sentinel:/],
    ["redis+sentinel://u:secret@a,u:secret@b/m", /once, before the first host/],
    ["unix://run/redis.sock", /three slashes/],
    ["unix://", /must name a socket/],
  ])("%s is refused, without a part of it in the words", (url, problem) => {
    expect(readRedisUrl(url)).toMatch(problem);
    expect(readRedisUrl(url)).not.toMatch(/sec|ret\b/);
  });

  test("what is shown of it has no user and no password", () => {
    for (const url of ["redis://app:se@cret@cache:1/2", "unix://app:secret@/run/s?db=1"])
      expect(parseRedisUrl(url).shown).not.toMatch(/app|secret|cret/);
    expect(parseRedisUrl("rediss+cluster://app:secret@a:1,b:2").shown).toBe("rediss+cluster://a:1,b:2");
    expect(parseRedisUrl("redis+sentinel://u:secret@a,b:1/m?sentinel_password=secret").shown).toBe(
      "redis+sentinel://a,b:1/m",
    );
  });
});

describe("redis_tls", () => {
  async function faultsOf(settings: Record<string, unknown>, env: NodeJS.ProcessEnv = {}) {
    const file = join(folder, "infermill.json");
    writeFileSync(file, JSON.stringify({ models: { Echo: { loader: "EchoModelLoader" } }, ...settings }));
    return loadConfig({ file, env }).then(
      (config) => config,
      (error: ConfigError) =>
        error.faults.map(({ key, problem }) => `${key} ${problem.replaceAll(folder, "")}`),
    );
  }

  test("without a URL that asks for TLS it is refused", async () => {
    expect(await faultsOf({ redis_tls: { servername: "cache" } })).toEqual([
      expect.stringMatching(/^redis_tls needs a redis_url \(or REDIS_URL\) that begins with rediss:/),
    ]);
    expect(
      await faultsOf({ redis_tls: { servername: "cache" } }, { REDIS_URL: "rediss://cache" }),
    ).toMatchObject({ redis_tls: { servername: "cache" }, redis_url: "rediss://cache" });
  });

  test.skipIf(whyNoOpenssl)("all faults of its files are reported together, beside all others", async () => {
    makeCertificates(join(folder, "tls"));
    writeFileSync(join(folder, "no.pem"), "nothing");
    const encrypted = [
      "pkcs8",
      "-topk8",
      "-in",
      "tls/client.key",
      "-passout",
      "pass:x",
      "-out",
      "locked.key",
    ];
    execFileSync("openssl", encrypted, { cwd: folder });
    expect(
      await faultsOf({
        redis_url: "rediss://:sec ret@cache:0",
        redis_tls: { ca: "no.pem", cert: "tls/expired.crt", key: "locked.key", serverName: "x" },
      }),
    ).toEqual(expect.arrayContaining([expect.stringMatching(/^redis_url must have a host and a port/)]));
    const tls = { ca: "no.pem", cert: "tls/expired.crt", key: "locked.key" };
    expect(await faultsOf({ redis_url: "rediss://cache", port: -1, redis_tls: tls })).toEqual([
      expect.stringMatching(/^port must be/),
      expect.stringMatching(/^redis_tls.ca names \/no.pem, which can't be used as certificates in PEM/),
      expect.stringMatching(/^redis_tls.key names \/locked.key, which can't be used .*: it has a passphrase/),
      expect.stringMatching(/^redis_tls.cert has expired/),
    ]);
    const pair = { cert: "tls/client.crt", key: "tls/server.key" };
    expect(await faultsOf({ redis_url: "rediss://cache", redis_tls: pair })).toEqual([
      "redis_tls.key is not the private key of redis_tls.cert",
    ]);
    expect(await faultsOf({ redis_url: "rediss://cache", redis_tls: { cert: "tls/client.crt" } })).toEqual([
      "redis_tls.key is missing: a certificate of this client needs both cert and key",
    ]);
    expect(await faultsOf({ redis_url: "rediss://cache", redis_tls: { ca: "gone.pem" } })).toEqual([
      "redis_tls.ca names /gone.pem, which is not there",
    ]);
    const good = { ca: "tls/ca.crt", cert: "tls/client.crt", key: "tls/client.key" };
    expect(await faultsOf({ redis_url: "rediss://cache", redis_tls: good })).toMatchObject({
      redis_tls: { ca: join(folder, "tls/ca.crt"), key: join(folder, "tls/client.key") },
    });
  });
});
