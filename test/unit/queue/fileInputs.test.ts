/** Uploads as files below the data folder. */
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import type { Redis } from "ioredis";
import { expect, onTestFinished, test } from "vitest";
import { configSchema } from "../../../src/config/schema.ts";
import { createInputStore, inputFolder } from "../../../src/queue/inputs.ts";
import { createNames } from "../../../src/queue/names.ts";

test.each([
  ["bytes", (bytes: Buffer) => bytes],
  ["a small stream", (bytes: Buffer) => Readable.from([bytes])],
  ["a stream beyond a megabyte", (bytes: Buffer) => Readable.from(Array.from({ length: 600 }, () => bytes))],
])("%s is written again where its folder was removed meanwhile", async (_name, toSource) => {
  const data_dir = await mkdtemp(join(tmpdir(), "infermill-inputs-"));
  onTestFinished(() => rm(data_dir, { recursive: true }));
  const content = { data_dir, models: { Echo: { loader: "EchoModelLoader" } } };
  const config = { ...configSchema.parse(content), file: join(data_dir, "infermill.json") };
  const store = createInputStore(config, createNames("test"), undefined as unknown as Redis);
  const bytes = Buffer.alloc(3000, "p");
  const whole = await readWhole(toSource(bytes));

  for (const id of ["pred_1ab", "pred_2ab"]) {
    const { ref, bytes: written } = await store.write({ model: "Echo", id }, 0, toSource(bytes));
    expect(written).toBe(whole.length);
    const file = join(inputFolder(config), (ref as { file: string }).file);
    expect(whole.equals(await readFile(file))).toBe(true);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect((await stat(dirname(file))).mode & 0o777).toBe(0o700);
    await rm(inputFolder(config), { recursive: true });
  }
});

async function readWhole(source: Buffer | Readable): Promise<Buffer> {
  return Buffer.isBuffer(source) ? source : Buffer.concat(await source.toArray());
}
