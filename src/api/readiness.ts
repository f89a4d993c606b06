/** Whether the models are served: what the live workers report, and whether consumption makes progress. */
import { z } from "zod";
import { redisFaultOf } from "../redis/refusals.ts";
import type { Api } from "./api.ts";
import type { WorkerReport } from "../queue/workerReports.ts";

const count = z.int().min(0);
export const modelReadinessSchema = z
  .object({
    ready: z.boolean(),
    engines: z.object({ ready: count, all: count }),
    problems: z.array(z.string()).meta({ description: "What keeps the model from being ready." }),
  })
  .meta({ id: "ModelReadiness" });

export const readinessSchema = z
  .object({
    status: z.enum(["ready", "not_ready"]),
    problems: z.array(z.string()).meta({ description: "What keeps all of it from being ready." }),
    models: z.record(z.string(), modelReadinessSchema),
  })
  .meta({ id: "Readiness" });

export type ModelReadiness = z.output<typeof modelReadinessSchema>;
export type Readiness = z.output<typeof readinessSchema>;

/** The worker reports itself every two seconds, and a chunk's own timeout ends it: later than this it hangs. */
const STUCK_MARGIN_MS = 30_000;
/** A prediction that is next and waits this long while none runs is a queue that nobody consumes. */
const MAX_UNCLAIMED_MS = 10_000;

export function reportsOf(reports: readonly WorkerReport[], model: string) {
  return reports.flatMap(({ id: worker, models }) => (models[model] ? [{ worker, ...models[model] }] : []));
}

/** Whether a model is served, and if not, what is missing. */
export async function checkModel(
  { predictions }: Api,
  name: string,
  reports: readonly WorkerReport[],
): Promise<ModelReadiness> {
  const served = reportsOf(reports, name);
  const engines = served.flatMap(({ engines: own }) => own);
  const ready = engines.filter(({ state }) => state === "ready").length;
  const problems: string[] = [];
  if (served.length === 0) problems.push("no live worker serves it");
  else if (ready === 0) problems.push(`none of its ${engines.length} engines is ready`);
  for (const { id, state, error } of engines)
    if (state !== "ready" && error) problems.push(`engine ${id}: ${error}`);

  const stuckLimitMs = predictions.model(name).timeout_ms + STUCK_MARGIN_MS;
  for (const { worker, stuck_ms } of served) {
    if (stuck_ms >= stuckLimitMs)
      problems.push(`the worker ${worker} has finished nothing for ${seconds(stuck_ms)}`);
  }
  const waitMs = await predictions.waitOfNext(name);
  const isHeld = served.some(({ held }) => held > 0) || (await predictions.depth(name)).running > 0;
  if (waitMs > MAX_UNCLAIMED_MS && !isHeld) {
    problems.push(`the next prediction has waited for ${seconds(waitMs)} and no worker takes it`);
  }
  return { ready: ready > 0 && problems.length === 0, engines: { ready, all: engines.length }, problems };
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}

/** Of every model; not ready where Redis is away. */
export async function checkReadiness(api: Api): Promise<Readiness> {
  try {
    const reports = await api.predictions.workers();
    const names = Object.keys(api.config.models);
    const checks = await Promise.all(names.map((name) => checkModel(api, name, reports)));
    const models = Object.fromEntries(names.map((name, index) => [name, checks[index]!]));
    const { problem: full } = api.predictions.storage();
    const general = full === undefined ? [] : [`no submission is accepted: ${full}`];
    const { problem: diskFull } = api.predictions.disk();
    if (diskFull !== undefined) general.push(`no upload is accepted: ${diskFull}`);
    const { live, runs, deliveries } = await api.predictions.coordination();
    if (live === 0 && runs + deliveries > 0)
      general.push(
        `no coordinator makes progress: ${runs} bulk runs and ${deliveries} webhook deliveries wait for one`,
      );
    const ofModels = names.flatMap((name) => models[name]!.problems.map((problem) => `${name}: ${problem}`));
    const isReady = general.length === 0 && checks.every((check) => check.ready);
    return { status: isReady ? "ready" : "not_ready", problems: [...general, ...ofModels], models };
  } catch (error) {
    const fault = redisFaultOf(error);
    if (!fault) throw error;
    return { status: "not_ready", problems: [fault.message], models: {} };
  }
}
