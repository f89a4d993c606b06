/** The guarded reader of an engine's pipe: frames come out whole however they arrive, and nothing else comes out. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseJson } from "../../../src/core/json.ts";
import { encodeFrame, FrameError, FrameReader } from "../../../src/engines/frames.ts";
import {
  decodeFromEngine,
  encodeAll,
  encodeOutcomes,
  noTimings,
  type MemberOutcome,
} from "../../../src/engines/protocol.ts";

const bytesOf = (parts: readonly Uint8Array[]) => Buffer.concat(parts);

test("frames come out as they went in, in whatever pieces they arrive", () => {
  const frame = fc.record({ header: fc.dictionary(fc.string(), fc.jsonValue()), body: fc.uint8Array() });
  fc.assert(
    fc.property(
      fc.array(frame, { maxLength: 5 }),
      fc.array(fc.integer({ min: 1, max: 40 })),
      (frames, cuts) => {
        const sent = frames.map(({ header, body }) => ({ header: JSON.stringify(header), body }));
        let rest = bytesOf(sent.flatMap(({ header, body }) => encodeFrame(header, [body])));
        const reader = new FrameReader();
        const read = [];
        for (const cut of [...cuts, Infinity]) {
          read.push(...reader.push(rest.subarray(0, cut)));
          rest = rest.subarray(cut);
        }
        expect(read.map(({ header, body }) => [header, [...body]])).toEqual(
          // With the numbers that JavaScript can't hold as they are read from outside.
          sent.map(({ header, body }) => [parseJson(header), [...body]]),
        );
      },
    ),
  );
});

test("whatever else arrives is an error, and nothing is reserved for it", () => {
  const prefix = (magic: string, header: number, body: number) => {
    const bytes = Buffer.alloc(12);
    bytes.write(magic, "latin1");
    bytes.writeUInt32LE(header, 4);
    bytes.writeUInt32LE(body, 8);
    return bytes;
  };
  for (const bytes of [
    Buffer.from("a line that the loader printed\n"),
    prefix("IFM2", 2, 0),
    prefix("IFM1", 2 ** 31, 0),
    prefix("IFM1", 2, 2 ** 32 - 1),
    Buffer.concat([prefix("IFM1", 9, 0), Buffer.from('{"a":NaN}')]),
    Buffer.concat([prefix("IFM1", 4, 0), Buffer.from("null")]),
    Buffer.concat([prefix("IFM1", 2, 0), Buffer.from("[]")]),
  ])
    expect(() => new FrameReader().push(bytes)).toThrow(FrameError);
});

test("no message of an engine is more than what the protocol says", () => {
  const message = fc.oneof(
    fc.dictionary(fc.string(), fc.jsonValue()),
    fc.record({
      type: fc.constantFrom("outcomes", "ready", "load_failed", "progress", "batch_limit"),
      outcomes: fc.oneof(
        fc.jsonValue(),
        fc.array(
          fc.dictionary(
            fc.constantFrom("key", "response", "outputs", "timings", "batch_size", "error"),
            fc.jsonValue(),
          ),
        ),
      ),
      description: fc.jsonValue(),
      batch_limit: fc.jsonValue(),
      error: fc.jsonValue(),
    }),
  );
  fc.assert(
    fc.property(message, (header) => {
      try {
        decodeFromEngine({ header: JSON.parse(JSON.stringify(header)), body: Buffer.alloc(3) });
      } catch (error) {
        expect(error).toBeInstanceOf(FrameError);
      }
    }),
  );
});

describe("outcomes", () => {
  const outcome = (key: number, response: Record<string, unknown>): MemberOutcome => ({
    key,
    response,
    timings: noTimings(),
    batch_size: 2,
  });

  function sent(outcomes: MemberOutcome[]): MemberOutcome[] {
    const reader = new FrameReader();
    return [...encodeOutcomes(encodeAll(outcomes))].flatMap((parts) =>
      reader.push(bytesOf(parts)).flatMap((frame) => {
        const message = decodeFromEngine(frame);
        return message.type === "outcomes" ? message.outcomes : [];
      }),
    );
  }

  test("travel with their outputs as bytes", () => {
    const bytes = Buffer.from([0, 255, 10]);
    const outputs = [{ name: "mask", mediaType: "image/png", bytes }];
    const [plain, rich] = sent([outcome(1, { a: null }), { ...outcome(2, { b: 1 }), outputs }]);
    expect(plain).toEqual(outcome(1, { a: null }));
    expect(rich).toMatchObject({
      key: 2,
      response: { b: 1 },
      outputs: [{ name: "mask", mediaType: "image/png" }],
    });
    expect([...rich!.outputs![0]!.bytes]).toEqual([...bytes]);
  });

  test("that JSON can't hold fail alone, with the path of the key", () => {
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    const [sound, nan, big, round] = sent([
      outcome(1, { a: [1, null] }),
      outcome(2, { Fs: [{ Cs: 1 }, { Cs: Number.NaN }] }),
      outcome(3, { a: 1n }),
      outcome(4, circle),
    ]);
    expect(sound!.response).toEqual({ a: [1, null] });
    expect(nan!.error!.detail).toBe(
      "the response can't be written as JSON: Fs[1].Cs is NaN, which JSON can't hold",
    );
    expect(big!.error!.detail).toContain("BigInt");
    expect(round!.error!.code).toBe("loader_failed");
  });
});
