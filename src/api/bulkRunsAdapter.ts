/**
 * The bulk runs as a queue of the dashboard: all of them, also those of the
 * command line, which are no jobs, each with its counts, rate and failures.
 */
import { BullMQAdapter } from "@bull-board/api/bullMQAdapter";
import type { BulkRuns } from "../bulk/runs.ts";
import { bulkRunLinks } from "../core/links.ts";
import { hasEnded, type BulkRun, type BulkStatus } from "../core/bulkRun.ts";

type Job = Awaited<ReturnType<BullMQAdapter["getJobs"]>>[number];
type JobStatus = ReturnType<BullMQAdapter["getJobStatuses"]>[number];

/** The newest; each look at the dashboard reads them. */
const MAX_SHOWN = 500;

const JOB_STATUS: Readonly<Record<BulkStatus, JobStatus>> = {
  queued: "waiting",
  walking: "active",
  running: "active",
  completed: "completed",
  cancelled: "failed",
  failed: "failed",
};

export class BulkRunsAdapter extends BullMQAdapter {
  readonly #runs: BulkRuns;

  constructor(runs: BulkRuns) {
    super(runs.queue, {
      // A run is cancelled or deleted through the api, which knows its files.
      readOnlyMode: true,
      allowRetries: false,
      displayName: "bulk runs",
      externalJobUrl: ({ id }) => ({ href: bulkRunLinks(String(id)).self, displayText: "bulk run" }),
    });
    this.#runs = runs;
  }

  override getStatuses(): ReturnType<BullMQAdapter["getStatuses"]> {
    return ["latest", ...this.getJobStatuses()];
  }

  override getJobStatuses(): JobStatus[] {
    return ["active", "waiting", "completed", "failed"];
  }

  override async getJobCounts(): ReturnType<BullMQAdapter["getJobCounts"]> {
    const counts = await super.getJobCounts();
    for (const status of Object.keys(counts)) counts[status as JobStatus] = 0;
    for (const { status } of await this.#runs.list(MAX_SHOWN)) {
      const jobStatus = JOB_STATUS[status];
      counts[jobStatus] = (counts[jobStatus] ?? 0) + 1;
    }
    return counts;
  }

  override async getJobs(statuses: JobStatus[], start = 0, end = MAX_SHOWN - 1): Promise<Job[]> {
    const runs = await this.#runs.list(MAX_SHOWN);
    const wanted = runs.filter(({ status }) => statuses.includes(JOB_STATUS[status]));
    return wanted.slice(start, end + 1).map(jobOf);
  }

  override async getJob(id: string): ReturnType<BullMQAdapter["getJob"]> {
    return jobOf(await this.#runs.read(id)) as Awaited<ReturnType<BullMQAdapter["getJob"]>>;
  }
}

/** As much of a job as a read-only dashboard looks at. */
function jobOf(run: BulkRun): Job {
  const { counts, images_per_second, eta_seconds, folder, glob, priority, status, error } = run;
  const json = {
    id: run.id,
    name: run.model,
    progress: Math.round(100 * (run.progress ?? 0)),
    attemptsMade: run.started_at === null ? 0 : 1,
    timestamp: Date.parse(run.created_at),
    processedOn: timeOf(run.started_at),
    finishedOn: timeOf(run.finished_at),
    failedReason: status === "cancelled" ? "cancelled" : (error?.detail ?? ""),
    stacktrace: [],
    data: { status, counts, images_per_second, eta_seconds, folder, glob, priority },
    returnvalue: hasEnded(status) ? counts : null,
    opts: {},
  };
  return { opts: {}, toJSON: () => json, getState: async () => JOB_STATUS[status] } as unknown as Job;
}

function timeOf(text: string | null): number | null {
  return text === null ? null : Date.parse(text);
}
