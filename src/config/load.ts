/**
 * Reads the configuration: a file, what the environment overrides, defaults.
 * Whatever is wrong with it is reported at once, each fault with its place.
 */
import { readFile } from "node:fs/promises";
import { dirname, resolve, sep } from "node:path";
import type { z } from "zod";
import { didYouMean } from "../closest.ts";
import { ConfigError, type ConfigFault } from "../errors.ts";
import { convertMilConfig, isMilConfig, type ConvertedConfig } from "../imil/milConfig.ts";
import { checkRedisTls, redisTlsSchema, resolveRedisTls } from "./redis.ts";
import type { BulkRoot, BulkRoots } from "./bulkRoots.ts";
import { isStorageUrl, toStoragePlace } from "./storagePlace.ts";
import { configSchema, modelSchema, type Config, type ModelConfig } from "./schema.ts";
import { decodeText } from "../core/text.ts";

/** Below the working folder. */
export const DEFAULT_FILE = "config/infermill.json";
/** Environment variables that override a setting, and how their text is read. */
const ENVIRONMENT = {
  HOST: { key: "host", read: (text: string): unknown => text },
  PORT: { key: "port", read: (text: string): unknown => (/^\d+$/.test(text) ? Number(text) : text) },
  GRPC_PORT: {
    key: "grpc_port",
    read: (text: string): unknown => (/^\d+$/.test(text) ? Number(text) : text),
  },
  INFERMILL_DATA_DIR: { key: "data_dir", read: (text: string): unknown => resolve(text) },
  REDIS_URL: { key: "redis_url", read: (text: string): unknown => text },
  LOG_LEVEL: { key: "log_level", read: (text: string): unknown => text },
  INFERMILL_API_KEYS: { key: "api_keys", read: listOf },
  INFERMILL_WEBHOOK_SECRET: { key: "webhooks.secret", read: listOf },
} as const;

function listOf(text: string): unknown {
  return text.split(",").map((part) => part.trim());
}

export interface LoadConfigOptions {
  /** The file named on the command line; else INFERMILL_CONFIG, else config/infermill.json below the working folder. */
  file?: string | undefined;
  env?: NodeJS.ProcessEnv;
  /** Further checks of the models that are sound so far, such as their loaders'; what they find is reported with the rest. */
  check?: (config: Pick<Config, "models" | "file">) => Promise<ConfigFault[]>;
  /** Told what of a mil_config.json is not served, or not as it stands there. */
  onWarning?: ((line: string) => void) | undefined;
}

/**
 * @throws ConfigError with all faults: of the file, of environment variables, of `check`
 */
export async function loadConfig({
  file,
  env = process.env,
  check,
  onWarning,
}: LoadConfigOptions = {}): Promise<Config> {
  const path = resolve(file ?? (env["INFERMILL_CONFIG"] || DEFAULT_FILE));
  const { settings: content, faults, warnings, keyInFile } = await readSettings(path);
  const overrides = new Map<string, string>();
  for (const [variable, { key, read }] of Object.entries(ENVIRONMENT)) {
    const text = env[variable];
    if (text === undefined || text === "") continue;
    setKey(content, key, read(text));
    overrides.set(key, variable);
  }

  const parsed = configSchema.safeParse(content, { reportInput: true });
  const ofModels = check?.({ models: parsed.data?.models ?? soundModels(content), file: path });
  const tls = redisTlsSchema.safeParse(content["redis_tls"]).data;
  const ofTls = tls && checkRedisTls(tls, path);
  for (const issue of parsed.error?.issues ?? []) {
    const variable = overrides.get(String(issue.path[0]));
    if (variable) faults.push({ source: "environment", key: variable, problem: describeIssue(issue) });
    else faults.push(...faultsOf(issue, path).map((fault) => ({ ...fault, key: keyInFile(fault.key) })));
  }
  for (const fault of (await ofModels) ?? []) faults.push({ ...fault, key: keyInFile(fault.key) });
  faults.push(...((await ofTls) ?? []));
  if (!parsed.success || faults.length > 0) throw new ConfigError(faults);
  for (const warning of warnings) onWarning?.(warning);
  const config = { ...resolvePaths(parsed.data, dirname(path)), file: path };
  refuseDataInPackage(config);
  return deepFreeze(config);
}

/** As where the configuration of the installed package is started, which belongs to a clone. */
function refuseDataInPackage({ data_dir, file }: Pick<Config, "data_dir" | "file">): void {
  if (!data_dir.split(sep).includes("node_modules")) return;
  const problem = `must not lie in node_modules, which the next npm install replaces, got ${data_dir}; start in a folder of your own that has ${DEFAULT_FILE}, or set INFERMILL_DATA_DIR`;
  throw new ConfigError([{ source: file, key: "data_dir", problem }]);
}

/** The file as `configSchema` takes it, be it infermill's own or IMIL's. */
async function readSettings(path: string): Promise<ConvertedConfig> {
  const content = await readJson(path);
  if (!isMilConfig(content)) return { settings: content, faults: [], warnings: [], keyInFile: (key) => key };
  const converted = await convertMilConfig(content, path, Object.keys(configSchema.shape));
  // That nothing is left to serve follows from its faults and needs no line of its own.
  if (Object.keys(converted.settings["models"] as object).length === 0 && converted.faults.length > 0)
    throw new ConfigError(converted.faults);
  return converted;
}

/** The models of a faulty configuration that have no fault themselves. */
function soundModels({ models }: Record<string, unknown>): Record<string, ModelConfig> {
  if (typeof models !== "object" || models === null) return {};
  return Object.fromEntries(
    Object.entries(models).flatMap(([name, section]) => {
      const parsed = modelSchema.safeParse(section);
      return parsed.success ? [[name, parsed.data]] : [];
    }),
  );
}

/** Sets `section.key`; where the section is faulty itself it stays for the schema to tell. */
function setKey(content: Record<string, unknown>, key: string, value: unknown): void {
  const [first = "", second] = key.split(".");
  if (second === undefined) content[first] = value;
  else if (typeof (content[first] ?? {}) === "object")
    content[first] = { ...(content[first] as object | undefined), [second]: value };
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = decodeText(await readFile(path));
  } catch (error) {
    const problem =
      (error as NodeJS.ErrnoException).code === "ENOENT"
        ? "there is no such file; name a configuration with --config or INFERMILL_CONFIG, or run `infermill init`, which writes one"
        : `can't be read: ${(error as Error).message}`;
    throw new ConfigError([{ source: path, key: "", problem }]);
  }
  try {
    const content: unknown = JSON.parse(text);
    if (typeof content === "object" && content !== null && !Array.isArray(content))
      return content as Record<string, unknown>;
    throw new Error(`it must be a JSON object, got ${Array.isArray(content) ? "an array" : typeof content}`);
  } catch (error) {
    throw new ConfigError([
      { source: path, key: "", problem: `is no configuration: ${(error as Error).message}` },
    ]);
  }
}

function resolvePaths(config: z.output<typeof configSchema>, folder: string): z.output<typeof configSchema> {
  const absolute = (path: string) => resolve(folder, path);
  const roots = (given: BulkRoots) =>
    Object.fromEntries(
      Object.entries(given).map(([name, root]): [string, BulkRoot] => {
        const isFolder = typeof root === "string" && !isStorageUrl(root);
        return [name, isFolder ? absolute(root) : toStoragePlace(root, config.s3)];
      }),
    );
  return {
    ...config,
    data_dir: absolute(config.data_dir),
    ...(config.redis_tls && { redis_tls: resolveRedisTls(config.redis_tls, folder) }),
    bulk_roots: roots(config.bulk_roots),
    annotate_roots: roots(config.annotate_roots),
    results_roots: roots(config.results_roots),
    ...(config.input_storage && { input_storage: toStoragePlace(config.input_storage, config.s3) }),
  };
}

/** Settings whose values hold keys or passwords, and must not end up in a log. */
const SECRET_KEYS: ReadonlySet<PropertyKey> = new Set(["secret", "api_keys", "redis_url"]);

/** The faults that one zod issue stands for: an unknown key is one each. */
export function faultsOf(
  issue: z.core.$ZodIssue,
  source: string,
  prefix: readonly PropertyKey[] = [],
): ConfigFault[] {
  const key = (path: readonly PropertyKey[]) => [...prefix, ...path].map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((unknown) => ({
      source,
      key: key([...issue.path, unknown]),
      problem: `is an unknown setting${didYouMean(unknown, knownKeys(prefix.length === 0 ? issue.path : []))}`,
    }));
  }
  return [{ source, key: key(issue.path), problem: describeIssue(issue) }];
}

/** The settings that there are at a place of the configuration; none where its loader decides. */
function knownKeys(path: readonly PropertyKey[]): string[] {
  let schema: unknown = configSchema;
  for (const key of path) schema = unwrap(schema)?.shape[String(key)];
  return Object.keys(unwrap(schema)?.shape ?? {});
}

/** The object below defaults and the like. */
function unwrap(schema: unknown): z.ZodObject | undefined {
  let inner = schema as { shape?: object; unwrap?: () => unknown } | undefined;
  while (inner && !inner.shape && inner.unwrap) inner = inner.unwrap() as typeof inner;
  return inner?.shape && (inner as z.ZodObject);
}

/** "must be a whole number, at least 1, got "8x"" */
function describeIssue(issue: z.core.$ZodIssue): string {
  const expected = expectation(issue);
  if ("input" in issue && issue.input === undefined) return `is missing: it ${expected}`;
  if (issue.path.some((key) => SECRET_KEYS.has(key)))
    return `${expected}; what came is not shown, as it may be a secret`;
  const got = JSON.stringify(issue.input) ?? typeof issue.input;
  return `${expected}, got ${got.length > 80 ? `${got.slice(0, 80)}…` : got}`;
}

function expectation(issue: z.core.$ZodIssue): string {
  // The schema's own words; zod's begin like this.
  if (!/^(Invalid|Too|Unrecognized)/.test(issue.message)) return issue.message;
  if (issue.code === "too_small")
    return `must be ${issue.origin === "string" || issue.origin === "array" ? "of length " : ""}≥ ${issue.minimum}`;
  if (issue.code === "too_big")
    return `must be ${issue.origin === "string" || issue.origin === "array" ? "of length " : ""}≤ ${issue.maximum}`;
  if (issue.code === "invalid_type") return `must be ${TYPE_NAMES[issue.expected] ?? issue.expected}`;
  if (issue.code === "invalid_value")
    return `must be one of ${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
  if (issue.code === "invalid_key") return expectation(issue.issues[0]!);
  if (issue.code === "invalid_union") {
    return [...new Set(issue.errors.map(([first]) => (first ? expectation(first) : "")))]
      .filter(Boolean)
      .join(", or ");
  }
  return issue.message;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  int: "a whole number",
  number: "a number",
  string: "a string",
  array: "a list",
  object: "an object",
  record: "an object",
  tuple: "a list of two numbers",
  boolean: "true or false",
};

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
