import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { configJsonSchema } from "../../../src/config/jsonSchema.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { ConfigError } from "../../../src/errors.ts";

const folder = mkdtempSync(join(tmpdir(), "infermill-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function configFile(content: unknown): string {
  const file = join(folder, `${crypto.randomUUID()}.json`);
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

async function faultsOf(content: unknown, env: NodeJS.ProcessEnv = {}): Promise<string[]> {
  const error: unknown = await loadConfig({ file: configFile(content), env }).catch(
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ConfigError)) throw new Error("no fault was found");
  return error.faults.map(({ key, problem }) => `${key} ${problem}`.trim());
}

const model = { loader: "CenterNetModelLoader" };

test("every fault is reported at once, with its key, what was expected and what was found", async () => {
  const faults = await faultsOf({
    port: "8x",
    prot: 1,
    models: {
      "a b": model,
      PyTorch: {
        loader: "Classifier",
        max_batch_size: "8x",
        device: "gpu",
        attempts: 0,
        input_image_size: [1],
      },
      Empty: {},
    },
  });
  expect(faults).toEqual([
    'port must be a whole number, got "8x"',
    `models.a b a model's name must match [A-Za-z0-9][A-Za-z0-9_.-]*, got "a b"`,
    'models.PyTorch.loader must be the name of a class that ends in ModelLoader, got "Classifier"',
    "models.PyTorch.input_image_size must be of length ≥ 2, got [1]",
    'models.PyTorch.device must be "cpu", "cuda", "cuda:<number>" or "webgpu", got "gpu"',
    'models.PyTorch.max_batch_size must be a whole number, got "8x"',
    "models.PyTorch.attempts must be ≥ 1, got 0",
    "models.Empty.loader is missing: it must be a string",
    'prot is an unknown setting; did you mean "port"?',
  ]);
});

test("an unknown setting brings the one that was probably meant", async () => {
  const models = { M: model };
  expect(await faultsOf({ models, keys: [], webhooks: { retry_delays: [] }, xyz: 1 })).toEqual([
    'webhooks.retry_delays is an unknown setting; did you mean "retry_delays_ms"?',
    'keys is an unknown setting; did you mean "api_keys"?',
    "xyz is an unknown setting",
  ]);
});

test("a value that may be a secret is not shown", async () => {
  const models = { M: model };
  const secret = "spaces in my secret key";
  const ofFile = { models, api_keys: [secret], redis_url: `rediss//:${secret}@redis`, webhooks: { secret } };
  const faults = [
    ...(await faultsOf(ofFile)),
    ...(await faultsOf({ models }, { INFERMILL_API_KEYS: secret, REDIS_URL: `http://:${secret}@redis` })),
  ];
  expect(faults).toHaveLength(5);
  for (const fault of faults) {
    expect(fault).not.toContain(secret);
    expect(fault).toContain("must b");
  }
});

test("a time that timers can't count is a fault: they would fire at once", async () => {
  expect(await faultsOf({ models: { Slow: { ...model, timeout_ms: 2 ** 31 } } })).toEqual([
    "models.Slow.timeout_ms must be ≤ 2147483647, got 2147483648",
  ]);
});

test("public_url is where links begin, and nothing more", async () => {
  for (const public_url of ["https://example.org", "http://10.0.0.1:8448/infermill/"])
    expect(
      await loadConfig({ file: configFile({ public_url, models: { M: model } }), env: {} }),
    ).toMatchObject({ public_url });
  for (const public_url of ["example.org", "ftp://x", "https://x/?a=1", "https://x/#a", "https://a:b@x/"])
    expect(await faultsOf({ public_url, models: { M: model } })).toEqual([
      `public_url must be an http:// or https:// URL without user name, query and fragment, got "${public_url}"`,
    ]);
});

test("a fault names its file, or the environment variable that it came from", async () => {
  const file = configFile({ port: 1, models: {} });
  const message = await loadConfig({ file, env: { PORT: "many" } }).catch((error: Error) => error.message);
  expect(message).toContain('environment: PORT must be a whole number, got "many"');
  expect(message).toContain(`${file}: models must name at least one model`);
});

test("a missing file and a file that is no JSON object say so", async () => {
  await expect(loadConfig({ file: join(folder, "none.json"), env: {} })).rejects.toThrow(
    /there is no such file; name a configuration with .* run `infermill init`/,
  );
  expect(await faultsOf("{ port: 1 }")).toEqual([expect.stringMatching(/^is no configuration: /)]);
  expect(await faultsOf("[]")).toEqual(["is no configuration: it must be a JSON object, got an array"]);
});

test("data in node_modules is refused, where the configuration of an installed package would put it", async () => {
  const file = join(folder, "node_modules/infermill/config/infermill.json");
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ data_dir: "../data", models: { M: model } }));
  await expect(loadConfig({ file, env: {} })).rejects.toThrow(
    /data_dir must not lie in node_modules, .* or set INFERMILL_DATA_DIR/,
  );
  expect(await loadConfig({ file, env: { INFERMILL_DATA_DIR: folder } })).toMatchObject({ data_dir: folder });
});

test("the environment overrides the file, and INFERMILL_CONFIG names it", async () => {
  const file = configFile({ port: 1, host: "127.0.0.1", models: { M: model } });
  const config = await loadConfig({
    env: {
      INFERMILL_CONFIG: file,
      PORT: "99",
      HOST: "0.0.0.0",
      REDIS_URL: "redis://elsewhere",
      INFERMILL_DATA_DIR: "/tmp/there",
    },
  });
  expect(config).toMatchObject({
    file,
    port: 99,
    host: "0.0.0.0",
    redis_url: "redis://elsewhere",
    data_dir: "/tmp/there",
  });
});

test("relative paths start from the folder of the file", async () => {
  const config = await loadConfig({
    file: configFile({ data_dir: "here", bulk_roots: { photos: "../photos" }, models: { M: model } }),
    env: {},
  });
  expect(config.data_dir).toBe(join(folder, "here"));
  expect(config.bulk_roots).toEqual({ photos: join(folder, "../photos") });
});

test("what further checks find is reported as faults too, and a sound configuration is frozen", async () => {
  const file = configFile({ models: { M: model } });
  const fault = { source: file, key: "models.M.extra", problem: "is wrong" };
  await expect(loadConfig({ file, env: {}, check: async () => [fault] })).rejects.toThrow(
    "models.M.extra is wrong",
  );
  const config = await loadConfig({ file, env: {} });
  expect(Object.isFrozen(config.models.M!.class_names)).toBe(true);
});

test("the published JSON Schema is the one that `npm run schema` writes", () => {
  const published = JSON.parse(
    readFileSync(new URL("../../../config/infermill.schema.json", import.meta.url), "utf8"),
  ) as unknown;
  expect(published).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
});
