/** `infermill bulk`: one model over every file of a folder, here with a stack of its own, or on a server. */
import { mkdir, open, realpath, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { z } from "zod";
import { openRunFolder } from "../bulk/runFolder.ts";
import type { BulkSpec } from "../bulk/spec.ts";
import { overlap, realPlace } from "../bulk/copies.ts";
import { checkFolderOfRun } from "../bulk/entry.ts";
import { compileGlob } from "../bulk/glob.ts";
import { loadConfig } from "../config/load.ts";
import { didYouMean } from "../closest.ts";
import type { Config } from "../config/schema.ts";
import { isStorageUrl } from "../config/storagePlace.ts";
import { maxFailuresSchema, metadataSchema, prioritySchema, readLimits } from "../core/bulkOptions.ts";
import { shellQuote } from "../core/shellQuote.ts";
import { urlSchemeOf } from "../core/urlScheme.ts";
import { BadInputError, InfermillError } from "../errors.ts";
import type { PredictionRequest } from "../imil/dictionaries.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { checkRequest } from "../imil/requestSchema.ts";
import { newBulkRunId } from "../queue/names.ts";
import { MissingBucketError } from "../storage/objectStore.ts";
import { objectOfUrl } from "../storage/storage.ts";
import { readFilesBeside, type FilesBeside } from "./bulkFiles.ts";
import { workHere } from "./bulkHere.ts";
import { followOnServer, resumeOnServer } from "./bulkServer.ts";
import { EXIT_FAILED, EXIT_INTERRUPTED, exitWith, surviveClosedTerminal, UsageError } from "./exit.ts";
import { printWarning } from "./log.ts";
import { parseRequest } from "./predict.ts";
import { clientOf, explain } from "./server.ts";

export interface BulkOptions {
  config?: string;
  model?: string;
  out?: string;
  annotate?: string;
  glob?: string;
  request?: string;
  server?: string;
  resume?: string;
  listSkipped?: boolean;
  report?: string;
  format?: string;
  priority?: string;
  failFast?: boolean;
  maxFailures?: string;
  deadline?: string;
  metadata?: string[];
}

export async function bulk(folder: string | undefined, options: BulkOptions): Promise<void> {
  if ((folder === undefined) === (options.resume === undefined))
    throw new UsageError("name a folder, or with --resume the run to resume, and not both");
  if (folder !== undefined && options.model === undefined)
    throw new UsageError("name the model: --model <name>");
  refuseChanges(options);
  const beside = await readFilesBeside(options);
  const interruption = interruptible();
  const exitCode =
    options.server === undefined
      ? await bulkHere(folder, options, interruption, beside)
      : await bulkOnServer(options.server, folder, options, interruption, beside);
  process.exit(exitCode);
}

const CHOSEN_AT_THE_START = [
  "model",
  "out",
  "annotate",
  "glob",
  "request",
  "priority",
  "failFast",
  "maxFailures",
  "deadline",
  "metadata",
] as const;

/** A run continues as it was started. */
function refuseChanges(options: BulkOptions): void {
  if (options.resume === undefined || options.server !== undefined) return;
  const given = CHOSEN_AT_THE_START.filter((key) => options[key] !== undefined).map(
    (key) => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`,
  );
  if (given.length > 0)
    throw new UsageError(`a run continues as it was started: leave out ${given.join(", ")}`);
}

async function bulkHere(
  folder: string | undefined,
  options: BulkOptions,
  signal: AbortSignal,
  beside: FilesBeside,
): Promise<number> {
  const config = await loadConfig({ file: options.config, check: checkLoaders, onWarning: printWarning });
  const spec =
    folder === undefined
      ? await readSpecToResume(config, options)
      : await writeNewSpec(config, folder, options.model!, options);
  const resume = resumeCommand(spec.id, { "--config": options.config });
  try {
    const exitCode = await workHere(config, spec, signal, options.listSkipped ?? false, beside);
    if (exitCode === EXIT_INTERRUPTED) console.error(`Interrupted. To resume: ${resume}`);
    return exitCode;
  } catch (error) {
    exitWith(error);
    console.error(`The run is not done. To resume: ${resume}`);
    return EXIT_FAILED;
  }
}

async function bulkOnServer(
  server: string,
  folder: string | undefined,
  options: BulkOptions,
  signal: AbortSignal,
  beside: FilesBeside,
): Promise<number> {
  if (options.annotate !== undefined && options.resume !== undefined)
    throw new UsageError("a run continues as it was started: leave out --annotate");
  const client = clientOf(server);
  if (folder === undefined && options.out === undefined)
    throw new UsageError("with --resume and --server name the results file to resume: --out <file>");
  for (const key of ["out", "report"] as const)
    if (options[key] !== undefined && urlSchemeOf(options[key]) !== undefined)
      throw new UsageError(`with --server, --${key} must be a file of this machine, got ${options[key]}`);
  const request = readRequest(options);
  const out = folder === undefined ? resolve(options.out!) : await createResultsFile(options.out);
  const { model, glob, annotate } = options;
  const id = options.resume ?? (await startOrClear());
  if (options.resume !== undefined) await resumeOnServer(client, id);
  const exitCode = await followOnServer(client, id, out, signal, options.listSkipped ?? false, beside);
  if (exitCode === EXIT_INTERRUPTED) {
    console.error(`Interrupted. To resume: ${resumeCommand(id, { "--server": server, "--out": out })}`);
    const key = process.env["INFERMILL_API_KEY"] ? '-H "Authorization: Bearer $INFERMILL_API_KEY" ' : "";
    const url = `${server.replace(/\/+$/, "")}/v1/bulk/${id}/cancel`;
    console.error(`The run continues at the server; to cancel it: curl -X POST ${key}${url}`);
  }
  return exitCode;

  async function startOrClear(): Promise<string> {
    try {
      const asked = { model: model!, folder: folder!, glob, request, annotate, ...readChoices(options) };
      const run = await client.startBulkRun(asked).catch(explain);
      console.error(`${run.id}: ${model} over ${folder} on ${server}`);
      return run.id;
    } catch (error) {
      await rm(out, { force: true });
      throw error;
    }
  }
}

async function writeNewSpec(
  config: Config,
  folder: string,
  model: string,
  options: BulkOptions,
): Promise<BulkSpec> {
  if (!Object.hasOwn(config.models, model)) {
    const known = Object.keys(config.models);
    throw new UsageError(
      `there is no model "${model}"; configured are: ${known.join(", ")}${didYouMean(model, known)}`,
    );
  }
  const source = {
    kind: "folder" as const,
    folder: await readableFolder(folder, config),
    glob: options.glob,
  };
  if (options.glob !== undefined) asUsage(() => compileGlob(options.glob!));
  const request = asUsage(() => checkRequest(readRequest(options), model));
  const annotate =
    options.annotate === undefined ? undefined : await annotateFolder(options.annotate, config);
  const isSame = isStorageUrl(source.folder)
    ? annotate !== undefined && overlap(placeOrPath(annotate), placeOrPath(source.folder))
    : annotate === source.folder;
  if (isSame)
    throw new UsageError(
      "--annotate must be another folder than that of the pictures, or it would overwrite them",
    );
  const id = newBulkRunId();
  const created = Date.now();
  const { priority = "low", metadata, ...asked } = readChoices(options);
  const limits = readLimits(asked, created);
  if ("problem" in limits) throw new UsageError(`--${limits.key.replaceAll("_", "-")} ${limits.problem}`);
  const spec: BulkSpec = {
    id,
    model,
    source,
    request,
    priority,
    ...(Object.keys(limits).length > 0 && { limits }),
    ...(metadata && { metadata }),
    created,
    ...(await placeOfResults(options.out, openRunFolder(config, id).path, config)),
    ...(annotate !== undefined && { annotate_folder: annotate }),
  };
  await openRunFolder(config, spec.id).writeSpec(spec);
  return spec;
}

async function readSpecToResume(config: Config, { resume }: BulkOptions): Promise<BulkSpec> {
  const spec = await Promise.resolve(resume!)
    .then((id) => openRunFolder(config, id).readSpec())
    .catch((error: unknown) => {
      if (error instanceof InfermillError)
        throw new UsageError(
          `${error.message} in ${config.data_dir}; name the configuration that it was started with`,
        );
      throw error;
    });
  if (spec.results_file === undefined)
    throw new UsageError(`${spec.id} is a run of a server: resume it there, by --server <url>`);
  return spec;
}

function readRequest({ request }: BulkOptions): PredictionRequest {
  const keys = asUsage(() => parseRequest(request));
  for (const key of ["Base_64", "image"])
    if (key in keys) throw new UsageError(`--request can't hold ${key}: the files are the pictures`);
  return keys;
}

/** As the API takes them. */
function readChoices({ priority, failFast, maxFailures, deadline, metadata }: BulkOptions) {
  const pairs = metadata?.map((pair) => {
    const at = pair.indexOf("=");
    if (at < 1) throw new UsageError(`--metadata must be <key>=<value>, got ${pair}`);
    return [pair.slice(0, at), pair.slice(at + 1)] as const;
  });
  return {
    ...(priority !== undefined && { priority: checkOption("priority", prioritySchema, priority) }),
    ...(failFast && { fail_fast: true }),
    ...(maxFailures !== undefined && {
      max_failures: checkOption("max-failures", maxFailuresSchema, Number(maxFailures)),
    }),
    ...(deadline !== undefined && { deadline }),
    ...(pairs && { metadata: checkOption("metadata", metadataSchema, Object.fromEntries(pairs)) }),
  };
}

function checkOption<S extends z.ZodType>(name: string, schema: S, value: unknown): z.output<S> {
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  throw new UsageError(`--${name} ${checked.error.issues.map(({ message }) => message).join("; ")}`);
}

async function readableFolder(folder: string, config: Config): Promise<string> {
  if (urlSchemeOf(folder) !== undefined) {
    const url = readStorageUrl(folder, "the folder");
    await checkFolderOfRun({ folder: url }, config).catch(refuseStorage);
    return url;
  }
  const real = await realpath(folder).catch(() => undefined);
  if (real !== undefined && (await stat(real)).isDirectory()) return real;
  throw new UsageError(
    real === undefined ? `there is no folder ${folder}` : `${folder} is a file, not a folder`,
  );
}

async function annotateFolder(named: string, config: Config): Promise<string> {
  if (urlSchemeOf(named) === undefined) return realPlace(resolve(named));
  const url = readStorageUrl(named, "--annotate");
  await refuseMissingBucket(url, config);
  return url;
}

function placeOrPath(name: string): string | { url: string } {
  return isStorageUrl(name) ? { url: name } : name;
}

function readStorageUrl(text: string, what: string): string {
  if (isStorageUrl(text)) return text.replace(/\/$/, "");
  throw new UsageError(
    `${what} must be a path here or s3://<bucket>/<prefix>, without .. and //, got ${text}`,
  );
}

/** What the storage refuses is a matter of usage; that it can't be reached isn't. */
function refuseStorage(error: unknown): never {
  if (error instanceof BadInputError) throw new UsageError(error.message, { cause: error });
  throw error;
}

/** Now, and not when hours of work are to be uploaded. Whether it may be written to is seen only then. */
async function refuseMissingBucket(url: string, config: Config): Promise<void> {
  await objectOfUrl(url, config)
    .folder.hasObjects()
    .catch((error: unknown) => {
      if (error instanceof MissingBucketError) refuseStorage(error);
    });
}

/** Results for object storage are gathered in the run's folder, and uploaded once it has ended. */
async function placeOfResults(
  named: string | undefined,
  runFolder: string,
  config: Config,
): Promise<Pick<BulkSpec, "results_file" | "results_url">> {
  if (named === undefined || urlSchemeOf(named) === undefined)
    return { results_file: await createResultsFile(named) };
  const results_url = readStorageUrl(named, "--out");
  const { folder, path } = objectOfUrl(results_url, config);
  if (path === "" || named.endsWith("/"))
    throw new UsageError(`--out must name an object, such as ${results_url}/results.ndjson`);
  await refuseMissingBucket(results_url, config);
  if (await folder.find(path).catch(refuseStorage))
    throw new UsageError(`${named} is there already; name another --out, or resume its run by --resume <id>`);
  await mkdir(runFolder, { recursive: true });
  return { results_file: await createResultsFile(join(runFolder, "results.ndjson")), results_url };
}

/** A new, empty file: the one that is named, else the first free one of results.ndjson, results-2.ndjson, … */
async function createResultsFile(named: string | undefined): Promise<string> {
  for (let number = 1; ; number++) {
    const file = resolve(named ?? (number === 1 ? "results.ndjson" : `results-${number}.ndjson`));
    try {
      await (await open(file, "wx")).close();
      return file;
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== "EEXIST") throw new UsageError(`the results can't be written: ${message}`);
      if (named !== undefined)
        throw new UsageError(
          `${named} is there already; name another --out, or resume its run by --resume <id>`,
        );
    }
  }
}

/** The first SIGINT, SIGTERM or SIGHUP aborts, a second SIGINT ends the process at once. */
function interruptible(): AbortSignal {
  const interruption = new AbortController();
  process.on("SIGINT", () => {
    if (interruption.signal.aborted) process.exit(EXIT_INTERRUPTED);
    interruption.abort();
  });
  process.on("SIGTERM", () => interruption.abort());
  process.on("SIGHUP", () => interruption.abort());
  surviveClosedTerminal();
  return interruption.signal;
}

function resumeCommand(id: string, options: Record<string, string | undefined>): string {
  const dataDir = process.env["INFERMILL_DATA_DIR"];
  const environment = dataDir ? [`INFERMILL_DATA_DIR=${shellQuote(dataDir)}`] : [];
  const given = Object.entries(options).flatMap(([name, value]) =>
    value === undefined ? [] : [name, shellQuote(value)],
  );
  return [...environment, "infermill bulk --resume", id, ...given].join(" ");
}

function asUsage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof InfermillError) throw new UsageError(error.message, { cause: error });
    throw error;
  }
}
