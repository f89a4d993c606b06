/** What the protocol says of the server and its models: metadata, configuration, readiness, statistics. */
import type { Api } from "../../api/api.ts";
import { checkModel, reportsOf } from "../../api/readiness.ts";
import {
  inputsOfDescription,
  type LoaderDescription,
  type TensorDescription,
} from "../../core/description.ts";
import type { ModelReport } from "../../queue/workerReports.ts";
import { datatypeOf } from "../../tensors/datatypes.ts";
import { isElementType } from "../../tensors/tensor.ts";
import { version } from "../../version.ts";
import { knownDescription, VERSION } from "./infer.ts";
import { REQUEST_INPUT } from "./inferRequest.ts";

export interface TensorMetadata {
  name: string;
  datatype: string;
  /** -1 where a dimension is free. */
  shape: number[];
}

export interface ModelMetadata {
  name: string;
  versions: string[];
  platform: string;
  inputs: TensorMetadata[];
  outputs: TensorMetadata[];
}

export const serverMetadata = {
  name: "infermill",
  version,
  extensions: [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
  ],
};

/** @throws RetryableError while no live worker has told what the model takes */
export async function modelMetadata(api: Api, name: string): Promise<ModelMetadata> {
  const description = await knownDescription(api, name);
  return {
    name,
    versions: [VERSION],
    platform: platformOf(api, name),
    ...(description.takesTensors ? tensorsOf(description) : elementsOf(description)),
  };
}

function platformOf(api: Api, name: string): string {
  const { model_path: files, loader } = api.predictions.model(name);
  return files.some((file) => /\.onnx\b/i.test(file)) ? "onnx_onnxv1" : `infermill_${loader}`;
}

function tensorsOf({ tensors }: LoaderDescription): Pick<ModelMetadata, "inputs" | "outputs"> {
  return {
    inputs: (tensors?.inputs ?? []).map(tensorOf),
    outputs: (tensors?.outputs ?? []).map(tensorOf),
  };
}

function tensorOf({ name, type, shape }: TensorDescription): TensorMetadata {
  return {
    name,
    datatype: isElementType(type) ? datatypeOf(type) : type,
    shape: shape.map((dim) => (typeof dim === "number" ? dim : -1)),
  };
}

/** Of a model that takes no tensors: its bytes, or request dictionaries; its findings, or whole responses. */
function elementsOf(description: LoaderDescription): Pick<ModelMetadata, "inputs" | "outputs"> {
  const bytes = inputsOfDescription(description).map(({ name }) => name);
  const list = (name: string): TensorMetadata => ({ name, datatype: "BYTES", shape: [-1] });
  return {
    inputs: (bytes.length > 0 ? bytes : [REQUEST_INPUT]).map(list),
    outputs: (description.picture === "none" ? ["response"] : ["findings"]).map(list),
  };
}

/**
 * A model's configuration as Triton writes it. `max_batch_size` is 0, which means that shapes are whole: predictions
 * are batched with those of other requests all the same.
 */
export async function modelConfiguration(api: Api, name: string) {
  const { inputs, outputs, platform } = await modelMetadata(api, name);
  const { loader, device, instances } = api.predictions.model(name);
  const configured = ({ name: tensor, datatype, shape }: TensorMetadata) => ({
    name: tensor,
    data_type: `TYPE_${datatype === "BYTES" ? "STRING" : datatype}`,
    dims: shape,
  });
  return {
    name,
    platform,
    backend: loader,
    max_batch_size: 0,
    input: inputs.map(configured),
    output: outputs.map(configured),
    instance_group: [device].flat().map((each) => ({
      name: each,
      kind: each === "cpu" ? "KIND_CPU" : "KIND_GPU",
      count: instances ?? 1,
    })),
  };
}

/** Every configured model, whether it is ready, and if not, why. */
export async function repositoryIndex(api: Api, isReadyOnly: boolean) {
  const reports = await api.predictions.workers();
  const names = Object.keys(api.config.models);
  const models = await Promise.all(
    names.map(async (name) => {
      const { ready, problems } = await checkModel(api, name, reports);
      return { name, version: VERSION, state: ready ? "READY" : "UNAVAILABLE", reason: problems.join("; ") };
    }),
  );
  return models.filter(({ state }) => !isReadyOnly || state === "READY");
}

export async function isModelReady(api: Api, name: string): Promise<boolean> {
  return (await checkModel(api, name, await api.predictions.workers())).ready;
}

/** What the live workers have counted since they started, of one model or of all. */
export async function statistics(api: Api, model?: string) {
  const reports = await api.predictions.workers();
  const names = model === undefined ? Object.keys(api.config.models) : [model];
  return { model_stats: names.map((name) => statisticsOf(name, reportsOf(reports, name))) };
}

function statisticsOf(name: string, served: readonly ModelReport[]) {
  const sum = (read: (totals: ModelReport["totals"]) => number) =>
    served.reduce((total, { totals }) => total + read(totals), 0);
  const succeeded = sum((totals) => totals.succeeded);
  const duration = (ms: number, count = succeeded) => ({ count, ns: Math.round(ms * 1e6) });
  const queue = sum(({ timings }) => timings.queue_ms);
  const input = sum(({ timings }) => timings.read_ms + timings.preprocess_ms);
  const infer = sum(({ timings }) => timings.infer_ms);
  const output = sum(({ timings }) => timings.postprocess_ms);
  return {
    name,
    version: VERSION,
    last_inference: 0,
    inference_count: succeeded,
    execution_count: sum((totals) => totals.batches),
    inference_stats: {
      success: duration(queue + input + infer + output),
      fail: duration(
        0,
        sum((totals) => totals.failed),
      ),
      queue: duration(queue),
      compute_input: duration(input),
      compute_infer: duration(infer),
      compute_output: duration(output),
      cache_hit: duration(0, 0),
      cache_miss: duration(0, 0),
    },
    response_stats: {},
    batch_stats: [],
    memory_usage: [],
  };
}
