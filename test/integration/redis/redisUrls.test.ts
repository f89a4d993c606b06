/** Every way to reach a Redis but Sentinel: TLS with certificates on both sides, sockets, users of its ACL, databases. */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisTls } from "../../../src/config/redis.ts";
import { connectRedis } from "../../../src/redis/connections.ts";
import { provideRedis } from "../../../src/redis/provideRedis.ts";
import { send } from "../../support/api.ts";
import { makeCertificates, SERVER_NAME, whyNoOpenssl } from "../../support/certificates.ts";
import { runInfermill, SCRIPTED_LOADER, startInfermill, submit, until } from "../../support/infermill.ts";
import { freePort } from "../../support/freePort.ts";
import { startOwnRedis, type OwnRedis } from "../../support/ownRedis.ts";
import { startSentinel } from "../../support/sentinels.ts";
import { whyNoRedis } from "../../support/redis.ts";

const SECRET = "p@ss/w0rd+%";
const LOGIN = `app:${encodeURIComponent(SECRET)}`;
/** As docs/configuration.md advises. */
const USER = { user: `app on >${SECRET} ~infermill* &infermill* +@all -@admin` };
const MODELS = { Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER } };

describe.skipIf(whyNoRedis ?? whyNoOpenssl)("a Redis that speaks TLS and wants a certificate", () => {
  const folder = mkdtempSync(join(tmpdir(), "redis-tls-"));
  const file = (name: string) => join(folder, name);
  const tls: RedisTls = {
    ca: file("ca.crt"),
    cert: file("client.crt"),
    key: file("client.key"),
    servername: SERVER_NAME,
  };
  const serverTls = {
    "tls-cert-file": file("server.crt"),
    "tls-key-file": file("server.key"),
    "tls-ca-cert-file": file("ca.crt"),
    "tls-auth-clients": "yes",
  };
  let redis: OwnRedis;
  let tlsPort: number;
  let url: string;

  beforeAll(async () => {
    makeCertificates(folder);
    tlsPort = await freePort();
    redis = await startOwnRedis({ ...USER, "tls-port": String(tlsPort), ...serverTls });
    url = `rediss://${LOGIN}@127.0.0.1:${tlsPort}/1`;
  });
  afterAll(async () => {
    await redis?.close();
    rmSync(folder, { recursive: true });
  });

  test("serves api, worker, coordinator and commands, all over TLS, and its password is in no log", async () => {
    const infermill = await startInfermill(
      { models: MODELS, redis_tls: tls, log_level: "debug" },
      { REDIS_URL: url },
    );
    try {
      expect((await submit(infermill.url, "Scripted", { Fid: "secured" })).status).toBe("succeeded");
      const clients = (await redis.admin.client("LIST")) as string;
      const theirs = clients.split("\n").filter((line) => / user=app /.test(line));
      // Of the api, the worker, the coordinator and the supervisor, and what BullMQ waits on.
      expect(theirs.length).toBeGreaterThan(8);
      expect(theirs.filter((line) => !/ db=1 /.test(line))).toEqual([]);
      expect(Number(/total_connections_received:(\d+)/.exec(await redis.admin.info())![1])).toBeGreaterThan(
        8,
      );
      const config = join(infermill.folder, "infermill.json");
      const commands = [
        ["doctor", "--config", config, "--json"],
        ["webhooks", "list", "--config", config],
        ["status", "--config", config],
      ].map((args) => runInfermill(args, { env: { REDIS_URL: url }, cwd: infermill.folder }));
      const [doctor, webhooks, status] = commands;
      await Promise.all(commands.map(({ exited }) => exited));
      expect(doctor!.output()).toMatch(/"found": "version \S+ at rediss:\/\/127\.0\.0\.1:\d+\/1 answers/);
      expect(webhooks!.output()).toMatch(/^0 failed, 0 pending, 0 delivered/m);
      expect(status!.output()).toMatch(/^Scripted +ready /m);
      for (const each of [infermill, ...commands]) expect(each.output()).not.toMatch(/p@ss|p%40ss|w0rd/);
    } finally {
      await infermill.stop();
    }
  });

  test("is found by a Sentinel that speaks TLS, too", async () => {
    const port = await freePort();
    const sentinel = await startSentinel(tlsPort, "watch", [
      `tls-port ${port}`,
      ...Object.entries(serverTls).map(([name, value]) => `${name} ${value}`),
      "tls-replication yes",
    ]);
    try {
      const address = {
        url: `rediss+sentinel://${LOGIN}@127.0.0.1:${port}/mymaster/1?sentinel_password=watch`,
        tls,
      };
      const connection = await connectRedis(address, "producer");
      expect(await connection.client("INFO")).toMatch(/ db=1 .* user=app /);
      connection.disconnect();
      await expect(
        connectRedis({ ...address, tls: { ...tls, servername: "elsewhere.test" } }, "producer"),
      ).rejects.toThrow(/altnames.*redis_tls\.servername/);
    } finally {
      await sentinel.close();
    }
  });

  test("may be a cluster, too", async () => {
    const port = await freePort();
    const node = await startOwnRedis({
      ...serverTls,
      "cluster-enabled": "yes",
      "cluster-port": String(await freePort()),
      "cluster-announce-ip": "127.0.0.1",
      "tls-cluster": "yes",
      "tls-port": String(port),
    });
    try {
      await node.admin.call("CLUSTER", "ADDSLOTSRANGE", 0, 16_383);
      await until(async () => (await node.admin.cluster("INFO")).includes("cluster_state:ok"), "its slots");
      const address = { url: `rediss+cluster://127.0.0.1:${port}`, tls };
      const connection = await connectRedis(address, "producer");
      expect(await connection.set("key", "value")).toBe("OK");
      connection.disconnect();
      for (const [change, expected] of [
        [{ servername: "elsewhere.test" }, /altnames.*redis_tls\.servername/],
        [{ ca: undefined }, /redis_tls\.ca/],
      ] as const)
        await expect(connectRedis({ ...address, tls: { ...tls, ...change } }, "producer")).rejects.toThrow(
          expected,
        );
      const plain = `rediss+cluster://127.0.0.1:${node.port}`;
      await expect(connectRedis({ url: plain, tls }, "worker", { timeoutMs: 4000 })).rejects.toThrow(
        /it may not speak TLS on this port/,
      );
    } finally {
      await node.close();
    }
  });

  test.each<[string, Partial<RedisTls>, RegExp]>([
    ["without its authority", { ca: undefined }, /self.signed certificate.*redis_tls\.ca/],
    ["with another authority", { ca: file("other.crt") }, /(self.signed|unable to).*redis_tls\.ca/],
    ["without a certificate", { cert: undefined, key: undefined }, /redis_tls\.cert and redis_tls\.key/],
    ["by another name", { servername: "elsewhere.test" }, /altnames.*redis_tls\.servername/],
  ])("%s it is told at once what is missing", async (_how, change, expected) => {
    const startedAt = Date.now();
    await expect(connectRedis({ url, tls: { ...tls, ...change } }, "worker")).rejects.toThrow(expected);
    expect(Date.now() - startedAt).toBeLessThan(10_000);
  });

  test("TLS to a port without it is told, and a wrong password at once and without it", async () => {
    const plain = `rediss://127.0.0.1:${redis.port}`;
    await expect(connectRedis({ url: plain, tls }, "worker", { timeoutMs: 1000 })).rejects.toThrow(
      /it may not speak TLS on this port/,
    );
    const wrong = url.replace("app:", "app:x");
    const error = await connectRedis({ url: wrong, tls }, "worker").catch((thrown: Error) => thrown);
    expect(error).toMatchObject({ code: "redis_refused", message: expect.stringMatching(/WRONGPASS/) });
    expect(inspect(error, { depth: 9 })).not.toMatch(/p@ss|p%40ss|w0rd/);
  });

  test("new certificates are taken by the next connection, half of a pair by none", async () => {
    const own = file("own");
    cpSync(file("client.crt"), `${own}.crt`);
    cpSync(file("client.key"), `${own}.key`);
    const connection = await connectRedis(
      { url, tls: { ...tls, cert: `${own}.crt`, key: `${own}.key` } },
      "worker",
    );
    try {
      for (const [crt, key] of [
        ["server.crt", "client.key"],
        ["server.crt", "server.key"],
      ]) {
        cpSync(file(crt!), `${own}.crt`);
        cpSync(file(key!), `${own}.key`);
        const reconnected = new Promise((resolve) => connection.once("ready", resolve));
        await redis.admin.client("KILL", "USER", "app");
        await reconnected;
        expect(await connection.ping()).toBe("PONG");
      }
    } finally {
      connection.disconnect();
    }
  });
});

describe.skipIf(whyNoRedis)("a Redis of this machine", () => {
  test("is reached by its socket, as a user, in a database", async () => {
    const folder = mkdtempSync(join(tmpdir(), "redis-socket-"));
    const redis = await startOwnRedis({ ...USER, unixsocket: join(folder, "redis.sock") });
    try {
      const url = `unix://${LOGIN}@${folder}/redis.sock?db=2`;
      const server = await provideRedis({ redisUrl: url, dataDir: folder, env: {} });
      const connection = await connectRedis({ url: server.url, tls: undefined }, "producer");
      expect(await connection.client("INFO")).toMatch(/ db=2 .* user=app /);
      connection.disconnect();
      await server.close();
    } finally {
      await redis.close();
      rmSync(folder, { recursive: true });
    }
  });
});

describe.skipIf(whyNoRedis)("a name behind which the master changes", () => {
  test("is followed: READONLY opens new connections, and all that was accepted ends", async () => {
    const first = await startOwnRedis();
    const second = await startOwnRedis({ replicaof: `127.0.0.1 ${first.port}` });
    const name = await startForward(first.port);
    const infermill = await startInfermill(
      { models: MODELS },
      { REDIS_URL: `redis://127.0.0.1:${name.port}` },
    );
    try {
      const url = `${infermill.url}/v1/models/Scripted/predictions`;
      const accepted = await Promise.all(
        Array.from({ length: 20 }, async (_, index) => send("POST", url, { Fid: `${index}`, Ms: 200 })),
      );
      await until(
        async () => (await first.admin.info("replication")).includes("state=online"),
        "a replica that follows",
      );
      await first.admin.set("last", "1");
      expect(await first.admin.wait(1, 20_000)).toBe(1);
      await second.admin.replicaof("NO", "ONE");
      await first.admin.replicaof("127.0.0.1", second.port);
      name.forwardTo(second.port);
      for (const { body } of accepted)
        await until(async () => {
          const { body: prediction } = await send("GET", `${url}/${body.id}`);
          return prediction.status === "succeeded";
        }, `the end of ${body.id}`);
      // The first to meet the replica is told so; the connection is a new one then.
      await until(
        () =>
          submit(infermill.url, "Scripted", { Fid: "after" }).then(
            ({ status }) => status === "succeeded",
            () => false,
          ),
        "a submission to the new master",
        10_000,
      );
    } finally {
      await infermill.stop();
      await name.close();
      await Promise.all([first.close(), second.close()]);
    }
  }, 120_000);

  /** Passes connections on to a port; those that are there stay where they are. */
  async function startForward(target: number) {
    const sockets = new Set<Socket>();
    let port = target;
    const server = createServer((incoming) => {
      const outgoing = connect(port, "127.0.0.1");
      for (const [from, to] of [
        [incoming, outgoing],
        [outgoing, incoming],
      ] as const) {
        sockets.add(from);
        from.pipe(to);
        from.on("error", () => to.destroy()).on("close", () => sockets.delete(from));
      }
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return {
      port: (server.address() as AddressInfo).port,
      forwardTo: (other: number) => void (port = other),
      async close() {
        for (const socket of sockets) socket.destroy();
        server.close();
        await once(server, "close");
      },
    };
  }
});
