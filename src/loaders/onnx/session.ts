/** Opens ONNX files on a device, and turns tensors into onnxruntime's and back. */
import { access } from "node:fs/promises";
import type { InferenceSession, Tensor } from "onnxruntime-node";
import { deviceAdvice, executionProvider } from "../../core/devices.ts";
import type { TensorDescription } from "../../core/description.ts";
import { BadInputError } from "../../errors.ts";
import { isElementType, type NumberTensor, type TensorValue } from "../../tensors/tensor.ts";
import { disableTelemetry } from "./telemetry.ts";

type Runtime = typeof import("onnxruntime-node");

export interface SessionOptions {
  /** For error messages. */
  modelName: string;
  /** `cpu`, `cuda:0`, `webgpu`. */
  device: string;
  intraOpThreads: number;
}

/** Imported at the first use only: a process that only lists or checks loaders must not load 46 MB of native code. */
export function loadRuntime(): Promise<Runtime> {
  disableTelemetry();
  return import("onnxruntime-node");
}

/**
 * Opens a model on its device.
 * @param content the file's bytes where they are not to be read from the file
 * @throws Error where there is no such file, or where the device was asked for and can't be used: a model never falls
 * back to the CPU without a word.
 */
export async function openSession(
  file: string | undefined,
  { modelName, device, intraOpThreads }: SessionOptions,
  content?: Uint8Array,
): Promise<InferenceSession> {
  if (file === undefined)
    throw new Error(`models.${modelName}.model_path must name an .onnx file, got an empty list`);
  await access(file).catch((error: unknown) => {
    throw new Error(`models.${modelName}.model_path names ${file}, which can't be read`, { cause: error });
  });
  const { InferenceSession: Session, listSupportedBackends } = await loadRuntime();
  const options: InferenceSession.SessionOptions = {
    executionProviders: [executionProvider(device)],
    intraOpNumThreads: intraOpThreads,
    interOpNumThreads: 1,
    // A plan of memory for each shape that comes holds a third more of it (YOLOv8n in batches of 8: 640 against 380 MiB) and
    // saves no time.
    enableMemPattern: false,
    // What fails is thrown, too, and logged by whoever is in charge.
    logSeverityLevel: 4,
  };
  try {
    return await (content ? Session.create(content, options) : Session.create(file, options));
  } catch (error) {
    const reason = reasonOf(error);
    if (device === "cpu") {
      throw new Error(`models.${modelName}.model_path: onnxruntime can't open ${file}: ${reason}`, {
        cause: error,
      });
    }
    const offered = listSupportedBackends().map(({ name, bundled }) =>
      bundled ? name : `${name} (extra libraries)`,
    );
    throw new Error(
      `models.${modelName}.device is "${device}", but onnxruntime can't open ${file} on it: ${reason}. ` +
        `This onnxruntime-node is built for ${offered.join(", ")}. ${deviceAdvice(device)}`,
      { cause: error },
    );
  }
}

/** The first line of what onnxruntime says, without the place in its own sources. */
export function reasonOf(error: unknown): string {
  const line = (error as Error).message.trim().split("\n")[0]!;
  const ofOperator =
    /while running (\w+) node\..* Status Message: (?:\/onnxruntime_src\S+ .*?\) )?(.*)$/.exec(line);
  return ofOperator ? `while running ${ofOperator[1]} node: ${ofOperator[2]}` : line;
}

/** Names, element types and shapes of a model's inputs or outputs. */
export function describeTensors(metadata: readonly InferenceSession.ValueMetadata[]): TensorDescription[] {
  return metadata.map((value) =>
    value.isTensor
      ? { name: value.name, type: value.type, shape: value.shape }
      : { name: value.name, type: "not a tensor", shape: [] },
  );
}

/** `x: float32 [N, 3]; …` */
export function listTensors(tensors: readonly TensorDescription[]): string {
  return tensors.map(({ name, type, shape }) => `${name}: ${type} [${shape.join(", ")}]`).join("; ");
}

/** onnxruntime's tensor with the same memory. @throws BadInputError where a text holds NUL, at which onnxruntime cuts it off */
export function toOrtTensor(runtime: Runtime, name: string, { type, dims, data }: TensorValue): Tensor {
  if (type === "string") {
    const cut = data.findIndex((text) => text.includes("\0"));
    if (cut >= 0)
      throw new BadInputError(`the input "${name}" must hold texts without NUL, element ${cut} has one`);
    return new runtime.Tensor("string", data, dims);
  }
  if (type !== "float16") return new runtime.Tensor(type as "float32", data as Float32Array, dims);
  // Where Node has a Float16Array (from 23 on), onnxruntime 1.30 asks for one and then reads no bytes of it. Its native
  // part wants the bits on every Node, and goes by the type that the tensor says.
  const tensor = new runtime.Tensor("uint16", data as Uint16Array, dims);
  return Object.assign(tensor, { type: "float16" });
}

/** A tensor of onnxruntime's with the same memory. */
export function fromOrtTensor(name: string, { type, dims, data }: Tensor): TensorValue {
  if (!isElementType(type)) throw new Error(`the output "${name}" is of type ${type}, which can't be read`);
  if (type === "string") return { type, dims, data: data as string[] };
  if (type !== "float16") return { type, dims, data: data as NumberTensor["data"] };
  const { buffer, byteOffset, length } = data as Uint16Array<ArrayBuffer>;
  return { type, dims, data: new Uint16Array(buffer, byteOffset, length) };
}
