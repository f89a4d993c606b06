/**
 * A request and its response as the queue, the worker and the engines know them: a dictionary, and bytes with names
 * beside it. What the keys mean is between a protocol and a loader.
 */

/** The dictionary of a request, as JSON has it. */
export type RequestDictionary = Record<string, unknown>;

/** The dictionary of a response, as JSON has it. */
export type ResponseDictionary = Record<string, unknown>;

/** Name of an input where its client gives none. */
export const DEFAULT_INPUT = "image";
/** Media type of bytes of which nothing else is known. */
export const UNKNOWN_MEDIA_TYPE = "application/octet-stream";

/** Bytes that a request brings: a picture, a sound, a tensor. */
export interface Input {
  /** Its role: the form field, or the tensor that it is. Default `image`. Several inputs may share a name. */
  name: string;
  /** Lower case, without parameters; `application/octet-stream` where nothing is known. */
  mediaType: string;
  bytes: Buffer;
}

/** Bytes that a response brings: a picture, a mask, a large tensor. */
export interface Output {
  /** Unique in its response: 1 to 256 printable characters. */
  name: string;
  mediaType: string;
  bytes: Uint8Array;
}

const INPUTS = Symbol("infermill.inputs");
const OUTPUTS = Symbol("infermill.outputs");

/** Attaches inputs to a request; they travel with the object and are no key of it. */
export function attachInputs<T extends object>(request: T, inputs: readonly Input[]): T {
  return Object.defineProperty(request, INPUTS, { value: inputs, configurable: true });
}

/** The inputs of a request, in the order in which they came; empty where it brings none. */
export function inputsOf(request: object): readonly Input[] {
  return (request as { [INPUTS]?: readonly Input[] })[INPUTS] ?? [];
}

/** Attaches outputs to a response; they travel with the object and are no key of it. */
export function attachOutputs<T extends object>(response: T, outputs: readonly Output[]): T {
  return Object.defineProperty(response, OUTPUTS, { value: outputs, configurable: true });
}

/** The outputs of a response; empty where it has none. */
export function outputsOf(response: object): readonly Output[] {
  return (response as { [OUTPUTS]?: readonly Output[] })[OUTPUTS] ?? [];
}
