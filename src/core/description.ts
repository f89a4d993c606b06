/** What a loader says of its model once it is loaded: what a request must bring, and what comes back. */

/** One kind of bytes that a request may bring. */
export interface InputDescription {
  /** The form field and the role, such as `image`, `anchor`, `audio`. */
  name: string;
  /** Media types or ranges: `image/*`, `audio/wav`, `*`. */
  mediaTypes: readonly string[];
  required: boolean;
  /** Whether it may come several times. */
  multiple: boolean;
}

export interface TensorDescription {
  name: string;
  type: string;
  /** -1 or a name where a dimension is free. */
  shape: readonly (number | string)[];
}

/** Shown by `GET /v1/models/{model}`. */
export interface LoaderDescription {
  /** Labels that findings can carry, after the `classes` filter; empty where they are open (CLIP). */
  labels: readonly string[];
  /** Whether a request must, may or need not bring a picture. */
  picture: "required" | "optional" | "none";
  /** Bytes that a request may bring. Default: what `picture` says, as `image`. */
  inputs?: readonly InputDescription[];
  /** Keys of the dictionary that a request must have beside its inputs, such as `Prompt`. */
  requiredKeys?: readonly string[];
  /** Tensors of the model: name, element type and shape. */
  tensors?: { inputs: readonly TensorDescription[]; outputs: readonly TensorDescription[] };
  /** Whether a request may bring `inputs` as the Open Inference Protocol writes them, as `tensors` describes them. */
  takesTensors?: boolean;
  /** What it turns into vectors: its response has the output `embedding` [N, D], FP32. */
  embeds?: "text" | "picture";
  /** What was read from the model's file and the files beside it, by what it says. */
  facts?: Readonly<Record<string, string>>;
  /** What was found at load and decided for it: each names the setting that changes it. */
  notes?: readonly string[];
}

const PICTURES = ["image/*"];

/** The bytes that a request to this model may bring. */
export function inputsOfDescription({
  inputs,
  picture,
}: Pick<LoaderDescription, "inputs" | "picture">): readonly InputDescription[] {
  if (inputs) return inputs;
  if (picture === "none") return [];
  return [{ name: "image", mediaTypes: PICTURES, required: picture === "required", multiple: true }];
}
