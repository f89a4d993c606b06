import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { exactInteger, formatJson, parseJson } from "../../../src/core/json.ts";

/** What an engine, Redis and BullMQ do to it on the way. */
const travel = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const echo = (text: string) => formatJson(travel(parseJson(text)));

describe("a number that is echoed does not change", () => {
  it.each([
    '{"Tid":9007199254740993}',
    '{"Tid":-9007199254740993,"Ad":{"frame_id":12345678901234567890}}',
    "[1e400,-1e400,1e-400,9007199254740993.5]",
    "9007199254740993",
    '{"a":[[123456789012345678901234567890]],"b":"9007199254740993"}',
    '{"a":"quote \\" 9007199254740993, \\\\","b":9007199254740993}',
    '{"9007199254740993":1}',
    '{"a":18014398509481984,"b":0.1,"c":-5,"d":1000000,"e":true,"f":null}',
  ])("%s", (text) => {
    expect(echo(text)).toBe(text);
  });

  it("but is a plain number where JavaScript holds it", () => {
    expect(parseJson('{"a":9007199254740991,"b":0.30000000000000004,"c":1e5,"d":1E+200}')).toEqual({
      a: 9007199254740991,
      b: 0.30000000000000004,
      c: 1e5,
      d: 1e200,
    });
    // A double has no more digits than that.
    expect(parseJson("[0.12345678901234567890123]")).toEqual([0.12345678901234568]);
  });

  it("whatever else is in the text", () => {
    const number = fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n });
    const text = fc.array(
      fc.oneof(
        number.map(String),
        fc.string({ unit: "binary" }).map((value) => JSON.stringify(value)),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
        fc.string().map((value) => JSON.stringify({ [value]: value })),
      ),
    );
    fc.assert(
      fc.property(text, (parts) => {
        const json = `[${parts.join(",")}]`;
        const exact = (value: string) => value.replaceAll(/\d+/g, (digits) => String(BigInt(digits)));
        // Two ways to write the same double (1e21, 1000…) are one.
        const same = (one: string) => exact(JSON.stringify(JSON.parse(one)));
        expect(same(echo(json))).toBe(same(json));
        for (const part of parts)
          if (/^-?\d+$/.test(part) && BigInt(Number(part)) !== BigInt(part))
            expect(echo(json)).toContain(part);
      }),
      { numRuns: 500 },
    );
  });

  it("and is a number in the text of an error", () => {
    const { Tid } = parseJson('{"Tid":9007199254740993}') as { Tid: unknown };
    expect(formatJson({ detail: `must be text, got ${JSON.stringify(Tid)}` })).toBe(
      String.raw`{"detail":"must be text, got \"9007199254740993\""}`,
    );
  });

  it("can be read as a whole number", () => {
    expect(exactInteger(parseJson("9007199254740993"))).toBe(9007199254740993n);
    for (const other of [parseJson("1e400"), 5, "5", null]) expect(exactInteger(other)).toBeUndefined();
  });
});

describe("what is no JSON", () => {
  it("is refused as JSON.parse refuses it", () => {
    for (const text of ["", "{", '{"a":9007199254740993', "[012]", "[9007199254740993}", '"\n"']) {
      let expected: unknown;
      try {
        JSON.parse(text);
      } catch (error) {
        expected = error;
      }
      expect(() => parseJson(text)).toThrow((expected as Error).message);
    }
  });
});

describe("the check costs little", () => {
  it("on a request with a large picture", () => {
    const base64 = Buffer.from(Uint8Array.from({ length: 400_000 }, (_, at) => (at * 7919) % 251)).toString(
      "base64",
    );
    const text = JSON.stringify({ Tid: "1", Base_64: base64, C_threshold: 0.5 });
    const timed = (work: () => void) => {
      let best = Infinity;
      for (let round = 0; round < 20; round++) {
        const startedAt = performance.now();
        work();
        best = Math.min(best, performance.now() - startedAt);
      }
      return best;
    };
    expect(parseJson(text)).toEqual(JSON.parse(text));
    const own = timed(() => parseJson(text)) - timed(() => JSON.parse(text));
    expect(own, "ms beside JSON.parse").toBeLessThan(2);
  });

  it("and a long string doesn't break it", () => {
    const text = `{"a":"${String.raw`\\\"`.repeat(1_000_000)}","b":9007199254740993}`;
    expect(echo(text)).toBe(text);
  });
});
