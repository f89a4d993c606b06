/** Signatures, and where the secret for them comes from. */
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { webhooksSchema } from "../../../src/config/webhooks.ts";
import { provideSecrets } from "../../../src/webhooks/secret.ts";
import { signatureHeaders } from "../../../src/webhooks/signature.ts";

const secretOf = (letter: string) => `whsec_${Buffer.alloc(32, letter).toString("base64")}`;

test("the published test vector of Standard Webhooks comes out", () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const at = new Date(1_614_265_330_000);
  expect(signatureHeaders([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')).toEqual({
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
});

test("with two secrets a receiver of either one verifies, and one of a third doesn't", () => {
  const body = '{"a":"ü"}';
  const headers = signatureHeaders([secretOf("a"), secretOf("b")], "msg_1", new Date(), body);
  expect(headers["webhook-signature"]!.split(" ")).toHaveLength(2);
  for (const letter of ["a", "b"])
    expect(new Webhook(secretOf(letter)).verify(body, headers)).toEqual({ a: "ü" });
  expect(() => new Webhook(secretOf("c")).verify(body, headers)).toThrow("No matching signature");
  expect(() => new Webhook(secretOf("a")).verify(`${body} `, headers)).toThrow("No matching signature");
});

test.each([
  ["no prefix", Buffer.alloc(32).toString("base64")],
  ["too short", `whsec_${Buffer.alloc(23).toString("base64")}`],
  ["too long", `whsec_${Buffer.alloc(65).toString("base64")}`],
  ["no base64", `whsec_${"!".repeat(40)}`],
  ["three of them", ["a", "b", "c"].map(secretOf)],
])("a secret with %s is refused", (_name, secret) => {
  expect(webhooksSchema.safeParse({ secret }).success).toBe(false);
});

describe("without a secret in the configuration", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "infermill-secret-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test("one is made, for its owner's eyes only, and the same for all who start at once or later", async () => {
    const config = { webhooks: webhooksSchema.parse({}), data_dir: join(folder, "data") };
    const provided = await Promise.all(Array.from({ length: 8 }, () => provideSecrets(config)));
    const { secrets, file } = provided[0]!;
    for (const each of provided) expect(each).toEqual({ secrets, file });
    expect(await provideSecrets(config)).toEqual({ secrets, file });
    expect(webhooksSchema.safeParse({ secret: secrets[0] }).success).toBe(true);
    expect((await stat(file!)).mode & 0o777).toBe(0o600);
  });

  test("one in the configuration goes first", async () => {
    const webhooks = webhooksSchema.parse({ secret: [secretOf("a"), secretOf("b")] });
    expect(await provideSecrets({ webhooks, data_dir: folder })).toEqual({
      secrets: [secretOf("a"), secretOf("b")],
    });
  });
});
