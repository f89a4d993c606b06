/** What may be reached where a client names the address. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAddressFilter, isAllowEntry } from "../../../src/egress/addressFilter.ts";
import {
  BlockedAddressError,
  createEgress,
  parseOutsideUrl,
  type Resolve,
} from "../../../src/egress/egress.ts";

const nothingAllowed = createAddressFilter([]);

describe("addresses", () => {
  test.each([
    ["loopback", ["127.0.0.1", "127.255.255.255", "::1"]],
    ["unspecified", ["0.0.0.0", "0.1.2.3", "::"]],
    ["private", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fdff::1", "fec0::1"]],
    [
      "link-local and metadata",
      ["169.254.1.1", "169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254"],
    ],
    ["Azure's metadata on a public address", ["168.63.129.16"]],
    ["carrier-grade NAT", ["100.64.0.1", "100.127.255.255", "100.100.100.200"]],
    ["multicast and broadcast", ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"]],
    [
      "reserved and documentation",
      [
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "240.0.0.1",
        "2001:db8::1",
        "100::1",
        "4000::1",
        "1::1",
      ],
    ],
    [
      "IPv4 in IPv6: mapped and compatible",
      ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1"],
    ],
    [
      "IPv4 in IPv6: NAT64, 6to4, Teredo, translated",
      [
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "::ffff:0:7f00:1",
      ],
    ],
    ["no address", ["", "localhost", "127.1", "1.2.3.4.5", "::g"]],
  ])("refused: %s", (_name, addresses) => {
    for (const address of addresses)
      expect([address, nothingAllowed.allowsAddress(address)]).toEqual([address, false]);
  });

  test("allowed: the public internet", () => {
    for (const address of [
      "8.8.8.8",
      "1.1.1.1",
      "172.32.0.1",
      "100.128.0.1",
      "2606:4700:4700::1111",
      "2a00::1",
    ])
      expect([address, nothingAllowed.allowsAddress(address)]).toEqual([address, true]);
  });

  test("allowed: what the configuration names, and nothing beside it", () => {
    const filter = createAddressFilter(["127.0.0.1", "10.1.0.0/16", "fd00::/8", "::1", "Hooks.Internal."]);
    for (const address of ["127.0.0.1", "::ffff:127.0.0.1", "10.1.255.255", "fd12::1", "::1"])
      expect([address, filter.allowsAddress(address)]).toEqual([address, true]);
    for (const address of ["127.0.0.2", "10.2.0.1", "fc00::1", "::2", "169.254.169.254"])
      expect([address, filter.allowsAddress(address)]).toEqual([address, false]);
    expect(filter.allowsHost("hooks.internal")).toBe(true);
    expect(filter.allowsHost("other.hooks.internal")).toBe(false);
  });

  test("no address of a private block is allowed, in whatever form it is written inside of IPv6", () => {
    const byte = fc.integer({ min: 0, max: 255 });
    const inside = fc.oneof(
      fc.tuple(fc.constantFrom(10, 127, 0), byte, byte, byte),
      fc.tuple(fc.constant(192), fc.constant(168), byte, byte),
      fc.tuple(fc.constant(169), fc.constant(254), byte, byte),
      fc.tuple(fc.constant(172), fc.integer({ min: 16, max: 31 }), byte, byte),
      fc.tuple(fc.constant(100), fc.integer({ min: 64, max: 127 }), byte, byte),
      fc.tuple(fc.integer({ min: 224, max: 255 }), byte, byte, byte),
    );
    fc.assert(
      fc.property(inside, ([a, b, c, d]) => {
        const hex = [(a << 8) | b, (c << 8) | d].map((group) => group.toString(16)).join(":");
        const forms = [
          `${a}.${b}.${c}.${d}`,
          `::ffff:${hex}`,
          `::${hex}`,
          `64:ff9b::${hex}`,
          `2002:${hex}::`,
        ];
        return forms.every((form) => !nothingAllowed.allowsAddress(form));
      }),
      { numRuns: 1000 },
    );
  });
});

test("an allow-list takes addresses, blocks and names, and no short forms that few expect", () => {
  for (const entry of ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8", "hooks.internal", "receiver", "a_b.c."])
    expect([entry, isAllowEntry(entry)]).toEqual([entry, true]);
  for (const entry of [
    "",
    "10.1",
    "127",
    "0x7f000001",
    "10.0.0.0/33",
    "http://x",
    "a b",
    "*.x",
    "x/8",
    "a..b",
    ".a",
  ])
    expect([entry, isAllowEntry(entry)]).toEqual([entry, false]);
});

test("what is no http or https URL is no URL to go to", () => {
  const long = `https://x/${"y".repeat(2048)}`;
  for (const url of ["ftp://x/", "file:///etc/passwd", "gopher://x", "//x.org", "x.org", "http://", "", long])
    expect(() => parseOutsideUrl(url, "image"), url).toThrow("image must be an http:// or https:// URL");
});

describe("requests", () => {
  let server: Server;
  let port: number;
  let hits = 0;
  beforeAll(async () => {
    server = createServer((_req, res) => {
      hits++;
      res.end("inside");
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ({ port } = server.address() as AddressInfo);
  });
  afterAll(() => void server.close());

  async function get(url: string, resolve?: Resolve, allow: string[] = []): Promise<string> {
    const egress = createEgress({ allow, allowKey: "webhooks.allow", ...(resolve && { resolve }) });
    return text(await egress.request(new URL(url), { method: "GET", headers: {}, timeoutMs: 3000 }));
  }

  test("every way to write this machine is refused, and nothing is connected to", async () => {
    const hosts = [
      "127.0.0.1",
      "127.1",
      "2130706433",
      "0x7f000001",
      "0x7f.1",
      "017700000001",
      "0177.0.0.1",
      "127.0.0.1.",
      "localhost",
      "LOCALHOST",
      "0.0.0.0",
      "0",
      "[::1]",
      "[::]",
      "[0:0:0:0:0:0:0:1]",
      "[::ffff:127.0.0.1]",
      "[::ffff:7f00:1]",
      "[64:ff9b::127.0.0.1]",
      "%6c%6f%63%61%6c%68%6f%73%74",
      "①②⑦.⓪.⓪.①",
    ];
    for (const host of hosts) {
      const error = await get(`http://${host}:${port}/`).catch((thrown: unknown) => thrown);
      expect(error, host).toBeInstanceOf(BlockedAddressError);
      expect((error as Error).message).toContain("webhooks.allow");
    }
    expect(hits).toBe(0);
  });

  test("an allowed address, block or name is reached", async () => {
    expect(await get(`http://127.0.0.1:${port}/`, undefined, ["127.0.0.0/8"])).toBe("inside");
    const toThisMachine: Resolve = async () => [{ address: "127.0.0.1", family: 4 }];
    expect(await get(`http://hooks.internal:${port}/`, toThisMachine, ["hooks.internal"])).toBe("inside");
    expect(await get(`http://hooks.internal:${port}/`, toThisMachine, ["127.0.0.1"])).toBe("inside");
    await expect(get(`http://other.internal:${port}/`, toThisMachine, ["hooks.internal"])).rejects.toThrow(
      "no public address",
    );
  });

  test("a name that is public when it is checked and private a moment later is looked up only once", async () => {
    let lookups = 0;
    const rebinding: Resolve = async () => [
      { address: lookups++ === 0 ? "192.0.2.1" : "127.0.0.1", family: 4 },
    ];
    // The address of the documentation stands for a public one; nothing answers there.
    await expect(get(`http://rebinding.test:${port}/`, rebinding, ["192.0.2.1"])).rejects.toThrow(
      /within|connect|EHOST|ENET/,
    );
    expect(lookups).toBe(1);
    const before = hits;
    await expect(get(`http://rebinding.test:${port}/`, rebinding, ["192.0.2.1"])).rejects.toThrow(
      BlockedAddressError,
    );
    expect(hits).toBe(before);
  });

  test("of several addresses of a name only those that may be reached are tried", async () => {
    const mixed: Resolve = async () => [
      { address: "169.254.169.254", family: 4 },
      { address: "127.0.0.1", family: 4 },
      { address: "::1", family: 6 },
    ];
    expect(await get(`http://mixed.test:${port}/`, mixed, ["127.0.0.1"])).toBe("inside");
    await expect(get(`http://mixed.test:${port}/`, mixed)).rejects.toThrow(BlockedAddressError);
  });

  test("the error tells no address, which would map the network to who asks", async () => {
    const error = await get("http://db.internal/", async () => [{ address: "10.9.8.7", family: 4 }]).catch(
      String,
    );
    expect(error).not.toContain("10.9.8.7");
  });

  test("whatever an answer is, a request ends", async () => {
    const answers = [
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
      "HTTP/1.1 103 Early Hints\r\n\r\n",
      "no HTTP\r\n\r\n",
      "",
    ];
    const odd = createTcpServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => socket.end(answers.shift() ?? ""));
    });
    odd.listen(0, "127.0.0.1");
    await once(odd, "listening");
    const url = `http://127.0.0.1:${(odd.address() as AddressInfo).port}/`;
    while (answers.length > 0)
      await expect(get(url, undefined, ["127.0.0.1"])).rejects.toThrow(/closed|hang up|Parse Error/);
    odd.close();
  });

  test("a name server that doesn't answer costs no more than the timeout", async () => {
    const egress = createEgress({ allow: [], allowKey: "x", resolve: () => new Promise(() => {}) });
    const start = Date.now();
    const asking = egress.request(new URL("http://slow.test/"), {
      method: "GET",
      headers: {},
      timeoutMs: 200,
    });
    await expect(asking).rejects.toThrow("within 0.2 s");
    expect(Date.now() - start).toBeLessThan(1000);
  });
});
