/** One prediction, of whatever queue: fetches the inputs that are elsewhere, runs it in the pool, says where the time went. */
import { untilTaken } from "../queue/bullmq.ts";
import type { Timings } from "../core/prediction.ts";
import type { InputRef, LocalInputRef } from "../queue/inputs.ts";
import type { EnginePool, EngineResult, EngineTask } from "./enginePool.ts";
import type { FetchedInputs, FetchInputs } from "./urlInputs.ts";

export interface TaskResult extends EngineResult {
  timings: Timings;
}

export interface TaskRunner {
  /**
   * @param refs the inputs, wherever they are
   * @param queuedAt Unix time in ms
   * @throws InfermillError it failed with, NotStartedError
   */
  run(task: Omit<EngineTask, "inputs">, refs: readonly InputRef[], queuedAt: number): Promise<TaskResult>;
  /** Predictions whose inputs are being fetched at this moment. */
  readonly fetching: number;
}

export interface TaskRunnerOptions {
  modelName: string;
  pool: EnginePool;
  fetchInputs: FetchInputs;
  /** Is told whenever `fetching` changes. */
  onFetching: () => void;
  /**
   * Removes what was fetched for a prediction.
   * @param wasRead whether an engine came through with it
   */
  onFetchedEnd: (id: string, fetched: readonly LocalInputRef[], wasRead: boolean) => void;
  onFault: (error: Error) => void;
}

export function createTaskRunner({
  modelName,
  pool,
  fetchInputs,
  onFetching,
  onFetchedEnd,
  onFault,
}: TaskRunnerOptions): TaskRunner {
  let fetching = 0;

  async function fetchElsewhere(refs: readonly InputRef[]): Promise<FetchedInputs> {
    fetching++;
    onFetching();
    try {
      return await untilTaken(() => fetchInputs(modelName, refs), onFault);
    } finally {
      fetching--;
      onFetching();
    }
  }

  async function runFetched(
    task: Omit<EngineTask, "inputs">,
    refs: readonly InputRef[],
    queuedAt: number,
  ): Promise<TaskResult> {
    let wasRead = false;
    const inputs = await fetchElsewhere(refs);
    try {
      const result = await runHere(task, inputs.refs, queuedAt, inputs.ms);
      wasRead = true;
      return result;
    } finally {
      inputs.release();
      if (inputs.fetched.length > 0) onFetchedEnd(task.id, inputs.fetched, wasRead);
    }
  }

  function runHere(
    task: Omit<EngineTask, "inputs">,
    inputs: EngineTask["inputs"],
    queuedAt: number,
    fetchMs: number,
  ): Promise<TaskResult> {
    return pool.run({ ...task, inputs }).then((result) => {
      const { timings, startedAt } = result;
      const whole: Timings = {
        queue_ms: Math.max(0, startedAt - queuedAt - fetchMs),
        read_ms: timings.read_ms + fetchMs,
        preprocess_ms: timings.preprocess_ms,
        infer_ms: timings.infer_ms,
        postprocess_ms: timings.postprocess_ms,
      };
      pool.addTimings(whole);
      return { ...result, timings: rounded(whole) };
    });
  }

  return {
    run: (task, refs, queuedAt) =>
      fetchInputs.isNeeded(refs)
        ? runFetched(task, refs, queuedAt)
        : runHere(task, refs as readonly LocalInputRef[], queuedAt, 0),
    get fetching() {
      return fetching;
    },
  };
}

function rounded(timings: Timings): Timings {
  const two = (ms: number) => Math.round(ms * 100) / 100;
  const { queue_ms, read_ms, preprocess_ms, infer_ms, postprocess_ms } = timings;
  return {
    queue_ms: two(queue_ms),
    read_ms: two(read_ms),
    preprocess_ms: two(preprocess_ms),
    infer_ms: two(infer_ms),
    postprocess_ms: two(postprocess_ms),
  };
}
