/** A bulk run with a stack of its own: Redis, a worker for the one model, and the coordinator in this process. */
import { rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { canWriteLabels } from "../annotate/annotate.ts";
import { openBulkTools, type BulkTools } from "../bulk/coordinator.ts";
import { drawCopies, placeForOwnCopies } from "../bulk/copies.ts";
import { readLines } from "../bulk/lines.ts";
import { followResults } from "../bulk/resultsFile.ts";
import type { BulkSpec } from "../bulk/spec.ts";
import type { BulkResult, SkippedCounts, SkippedLine } from "../core/bulkRun.ts";
import { workOnRun } from "../bulk/work.ts";
import type { Config } from "../config/schema.ts";
import { resolveModelPaths } from "../loaders/openLoader.ts";
import { provideRedis } from "../redis/provideRedis.ts";
import { putFile } from "../storage/storage.ts";
import { showBulkProgress } from "./bulkProgress.ts";
import { CountedResults } from "../bulk/countedResults.ts";
import { convertResults, MEDIA_TYPES } from "../report/formats.ts";
import { writeFilesBeside, type FilesBeside } from "./bulkFiles.ts";
import { formatSummary, skippedCountsText, skippedText } from "./bulkSummary.ts";
import { EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE } from "./exit.ts";
import { createLog } from "./log.ts";
import { supervise } from "./supervisor.ts";

const STOP_LIMIT_MS = 30_000;

/** @returns the exit code */
export async function workHere(
  config: Config,
  spec: BulkSpec,
  signal: AbortSignal,
  listsSkipped: boolean,
  beside: FilesBeside,
): Promise<number> {
  const tell = (line: string) => console.error(line);
  // A log would tear the bar.
  const level = process.env["LOG_LEVEL"] ? config.log_level : "warn";
  const log = createLog("bulk", level);
  await resolveModelPaths(config, spec.model, tell);
  const redis = await provideRedis({
    redisUrl: config.redis_url,
    redisTls: config.redis_tls,
    dataDir: config.data_dir,
    onProgress: tell,
    log,
  });
  const script = fileURLToPath(
    new URL(import.meta.url.endsWith(".ts") ? "./main.ts" : "./main.js", import.meta.url),
  );
  const env = { ...process.env, INFERMILL_CONFIG: config.file, REDIS_URL: redis.url, LOG_LEVEL: level };
  const worker = supervise("worker", script, ["worker", "--models", spec.model], { env, log });
  const tools = await openBulkTools({ config, redisUrl: redis.url });
  try {
    tell(
      `${spec.id}: ${spec.model} over ${spec.source.kind === "folder" ? spec.source.folder : "a manifest"}`,
    );
    await Promise.race([worker.ready, once(signal)]);
    return await work(config, spec, tools, log, signal, listsSkipped, beside);
  } finally {
    await worker.stop(STOP_LIMIT_MS);
    await tools.close();
    await redis.close();
  }
}

async function work(
  config: Config,
  spec: BulkSpec,
  tools: BulkTools,
  log: Logger,
  signal: AbortSignal,
  listsSkipped: boolean,
  beside: FilesBeside,
): Promise<number> {
  const { runs } = tools;
  // One that was interrupted long ago is as good as new now, and not to be swept.
  await runs.register(spec, 0);
  await runs.reopen(spec.id);
  await runs.sweep({ except: spec.id });
  const resultsFile = runs.resultsFile(spec);
  const before = await countLines(resultsFile);
  const startedAt = performance.now();
  let isOver = false;
  const summary = new CountedResults();
  const reading = readAlong(config, spec, resultsFile, summary, async () => isOver, signal);
  // Its fault is met below, once the run has let go.
  reading.catch(() => {});
  const progress = showBulkProgress();
  const outcome = await workOnRun(spec, {
    ...tools,
    config,
    log,
    signal,
    onHeartbeat: (state) => progress.update(state),
  }).finally(() => (isOver = true));
  const seconds = (performance.now() - startedAt) / 1000;
  await reading;
  progress.end();
  const { counts, skipped, error } = await runs.read(spec.id);
  const printSkipped = async () => {
    if (listsSkipped)
      for await (const { text } of readLines(runs.folder(spec.id).skippedFile))
        console.log(skippedText(JSON.parse(text) as SkippedLine));
  };
  if (counts.total === 0 && outcome === "completed") {
    await printSkipped();
    await runs.remove(spec.id);
    await rm(resultsFile, { force: true });
    return tellOfNothing(spec, skipped);
  }
  const session = { done: counts.done - before, seconds };
  // Also where nothing but copies is left to draw.
  if (outcome === "released" || signal.aborted) {
    console.error(`${counts.done} of ${counts.total} done; the results so far: ${resultsFile}`);
    return EXIT_INTERRUPTED;
  }
  const { results_url: resultsUrl } = spec;
  const put = (file: string, url: string, mediaType: string) => putFile(file, url, mediaType, config);
  // Before the summary, which says where they are.
  if (resultsUrl !== undefined) await put(resultsFile, resultsUrl, MEDIA_TYPES.ndjson);
  const results = resultsUrl ?? resultsFile;
  console.log(formatSummary(summary, counts.total, session, results, skipped));
  await printSkipped();
  if (outcome === "cancelled") console.error("infermill: the run was cancelled by another process");
  if (error) console.error(`infermill: the run gave up: ${error.detail}; to resume: --resume ${spec.id}`);
  if (spec.annotate_folder !== undefined) console.log(`annotated      ${spec.annotate_folder}`);
  const isWhole = await writeFilesBeside(beside, results, {
    upload: { folder: runs.folder(spec.id).path, put },
    report: async () => (await import("../report/report.ts")).makeReport(runs, spec.id, config),
    results: (format) => convertResults(format, runs, spec.id, config),
  });
  return outcome === "completed" && counts.failed === 0 && isWhole ? 0 : EXIT_FAILED;
}

/** Counts what comes out, and draws the copies that were asked for. */
async function readAlong(
  config: Config,
  spec: BulkSpec,
  resultsFile: string,
  summary: CountedResults,
  hasEnded: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  const { annotate_folder: folder } = spec;
  const place = folder === undefined ? undefined : placeForOwnCopies(folder, config);
  if (place !== undefined && !(await canWriteLabels()))
    console.error(
      "infermill: warning: no font is installed, so that boxes come without labels (on Debian: apt-get install fonts-dejavu-core)",
    );
  for await (const lines of followResults(resultsFile, { hasEnded, signal })) {
    const results = lines
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as BulkResult);
    for (const result of results) summary.add(result);
    for (let start = 0; place !== undefined && start < results.length && !signal.aborted; start += 2) {
      const faults = await drawCopies(results.slice(start, start + 2), { config, spec, place });
      for (const fault of faults) console.error(`infermill: warning: ${fault}`);
    }
  }
}

function tellOfNothing({ source }: BulkSpec, skipped: SkippedCounts): number {
  if (source.kind === "folder") {
    const what =
      source.glob === undefined
        ? "no picture; choose other files with --glob"
        : `no file that matches ${source.glob}`;
    const leftOut = skipped.total > 0 ? `; left out: ${skippedCountsText(skipped)}` : "";
    console.error(`infermill: ${source.folder} holds ${what}${leftOut}`);
  }
  return EXIT_USAGE;
}

async function countLines(file: string): Promise<number> {
  let count = 0;
  for await (const { isWhole } of readLines(file)) if (isWhole) count++;
  return count;
}

function once(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
