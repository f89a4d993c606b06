/** The messages between a worker and its engines, and their form on the pipe: docs/engine-protocol.md. */
import { z } from "zod";
import type { InputDescription, LoaderDescription, TensorDescription } from "../core/description.ts";
import type { Output, RequestDictionary, ResponseDictionary } from "../core/request.ts";
import { BadInputError, InfermillError, LoaderError, toInfermillError } from "../errors.ts";
import type { LoaderSpec } from "../loaders/loaderSpec.ts";
import { encodeFrame, FrameError, type Frame } from "./frames.ts";

/** Raised when a message changes in a way that an older engine would misread. */
export const PROTOCOL = 1;

/** The file descriptor of an engine's pipe. */
export const PIPE = 3;

/** Bytes beside the headers that travel in one frame, where that can be chosen. */
export const MAX_BODY_TOGETHER = 64 * 2 ** 20;

/** The largest response, with its outputs: a frame holds it in any case. */
const MAX_OUTCOME_BYTES = 128 * 2 ** 20;

/** What an engine process needs: its loader, and where the inputs are. */
export interface EngineSpec extends LoaderSpec {
  inputs: { folder: string; roots: Readonly<Record<string, string>> };
}

/** Where an engine finds the bytes of an input. */
export type InputPlace =
  /** A file of the input store, relative to its folder. */
  | { file: string }
  /** A file below one of the configuration's `bulk_roots`. */
  | { root: string; path: string }
  | { path: string }
  /** They travel beside the header. */
  | { bytes: Buffer };

export type MemberInput = InputPlace & { name?: string; media_type?: string };

/** One prediction of a chunk. */
export interface Member {
  /** Unique in its worker; a job's id isn't, as a job whose lock was lost comes again. */
  key: number;
  request: RequestDictionary;
  inputs: readonly MemberInput[];
}

/** Milliseconds of each phase. */
export interface PhaseTimings {
  read_ms: number;
  preprocess_ms: number;
  infer_ms: number;
  postprocess_ms: number;
}

export interface MemberOutcome {
  key: number;
  response?: ResponseDictionary;
  /** Bytes beside the response. */
  outputs?: readonly Output[];
  error?: WireError;
  timings: PhaseTimings;
  /** 0 where no batch was formed. */
  batch_size: number;
}

export type FromEngine =
  | { type: "ready"; description: LoaderDescription; batchLimit: number }
  | { type: "load_failed"; error: WireError }
  | { type: "outcomes"; outcomes: MemberOutcome[] }
  /** A long run continues. */
  | { type: "progress" }
  /** The device's memory holds fewer at once than was thought. */
  | { type: "batch_limit"; batchLimit: number; reason: string };

/** Of a prediction that failed before its batch was formed. */
export function noTimings(): PhaseTimings {
  return { read_ms: 0, preprocess_ms: 0, infer_ms: 0, postprocess_ms: 0 };
}

/** A stored input that isn't there any more. */
export function lostInput(cause?: unknown): BadInputError {
  return new BadInputError(
    "the stored picture is gone: it outlived input_ttl_seconds, or api and worker don't share data_dir (then set inputs to redis)",
    { cause },
  );
}

/** An InfermillError on its way between processes. */
export interface WireError {
  code: string;
  title: string;
  status: number;
  retryable: boolean;
  detail: string;
  stack?: string | undefined;
}

export function toWire(error: InfermillError): WireError {
  const { code, title, status, retryable, message: detail } = error;
  const cause = error.cause instanceof Error ? error.cause : error;
  return { code, title, status, retryable, detail, stack: cause.stack };
}

export function fromWire({ detail, stack, ...kind }: WireError): InfermillError {
  return Object.assign(new InfermillError(detail), kind, stack && { stack });
}

// From the worker to an engine

/** A chunk: predictions that travel together; the engine forms batches of them. Urgent ones run before what has not begun. */
export function encodeChunk(members: readonly Member[], isUrgent: boolean): Uint8Array[] {
  const body: Buffer[] = [];
  const withoutBytes = (input: MemberInput) => {
    if (!("bytes" in input)) return input;
    body.push(input.bytes);
    return { ...input, bytes: input.bytes.length };
  };
  const sent = members.map((member) =>
    member.inputs.some((input) => "bytes" in input)
      ? { ...member, inputs: member.inputs.map(withoutBytes) }
      : member,
  );
  return encodeFrame(JSON.stringify({ type: "chunk", is_urgent: isUrgent, members: sent }), body);
}

/** What the worker sent. It is trusted: both come with the same package. */
export type ToEngine =
  | { type: "load"; spec: EngineSpec }
  | { type: "chunk"; members: Member[]; isUrgent: boolean }
  | { type: "close" };

export function decodeToEngine({ header, body }: Frame): ToEngine {
  if (header["type"] !== "chunk") return header as ToEngine;
  const { members, is_urgent: isUrgent } = header as { members: Member[]; is_urgent: boolean };
  let offset = 0;
  for (const { inputs } of members) {
    for (const input of inputs as { bytes?: number | Buffer }[]) {
      if (typeof input.bytes === "number") input.bytes = body.subarray(offset, (offset += input.bytes));
    }
  }
  return { type: "chunk", members, isUrgent };
}

// From an engine to the worker

/** One outcome or several. */
export interface EncodedOutcome {
  header: string;
  body: readonly Uint8Array[];
}

/**
 * Outcomes as they travel: all at once, which is quick, or where one can't be written one by one, so that it fails alone.
 */
export function encodeAll(outcomes: readonly MemberOutcome[]): EncodedOutcome[] {
  try {
    return [encodeTogether(outcomes)];
  } catch {
    return outcomes.map((outcome) => {
      try {
        return encodeTogether([outcome]);
      } catch (thrown) {
        const { key, timings, batch_size } = outcome;
        const error = toInfermillError(
          thrown,
          (detail, options) => new LoaderError(`the response can't be written as JSON: ${detail}`, options),
        );
        return encodeTogether([{ key, timings, batch_size, error: toWire(error) }]);
      }
    });
  }
}

/** @throws what JSON.stringify throws, LoaderError */
function encodeTogether(outcomes: readonly MemberOutcome[]): EncodedOutcome {
  const body: Uint8Array[] = [];
  const sent = outcomes.map((outcome) => {
    if (!outcome.outputs) return outcome;
    for (const { bytes } of outcome.outputs) body.push(bytes);
    return { ...outcome, outputs: outcome.outputs.map(describeOutput) };
  });
  const header = JSON.stringify(sent).slice(1, -1);
  // JSON writes null for numbers that it can't hold, which would look right. Without a null there is none.
  const responses = header.includes("null") ? outcomes.map(({ response }) => response) : [];
  for (const response of responses) {
    const path = findNonFinite(response, "");
    if (path !== undefined)
      throw new LoaderError(`the response can't be written as JSON: ${path}, which JSON can't hold`);
  }
  const encoded = { header, body };
  if (sizeOf(encoded) > MAX_OUTCOME_BYTES)
    throw new LoaderError(
      `the response has ${sizeOf(encoded)} bytes with its outputs, at most ${MAX_OUTCOME_BYTES} can be sent`,
    );
  return encoded;
}

function describeOutput({ name, mediaType, bytes }: Output): object {
  return { name, media_type: mediaType, bytes: bytes.byteLength };
}

function sizeOf({ header, body }: EncodedOutcome): number {
  return body.reduce((sum, { byteLength }) => sum + byteLength, header.length);
}

/** "Fs[0].Cs is NaN" */
function findNonFinite(value: unknown, path: string): string | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? undefined : `${path} is ${value}`;
  if (typeof value !== "object" || value === null) return undefined;
  const isList = Array.isArray(value);
  for (const [key, inner] of Object.entries(value)) {
    const found = findNonFinite(inner, isList ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Frames of outcomes, as few as their size allows. */
export function* encodeOutcomes(outcomes: readonly EncodedOutcome[]): Generator<Uint8Array[]> {
  let start = 0;
  let bytes = 0;
  for (const [index, outcome] of outcomes.entries()) {
    const own = sizeOf(outcome);
    bytes += own;
    if (index > start && bytes > MAX_BODY_TOGETHER) {
      yield frameOf(outcomes.slice(start, index));
      start = index;
      bytes = own;
    }
  }
  if (start < outcomes.length) yield frameOf(outcomes.slice(start));
}

function frameOf(outcomes: readonly EncodedOutcome[]): Uint8Array[] {
  const header = `{"type":"outcomes","outcomes":[${outcomes.map((each) => each.header).join(",")}]}`;
  return encodeFrame(
    header,
    outcomes.flatMap(({ body }) => body),
  );
}

const description = z.looseObject({
  labels: z.array(z.string()).default([]),
  picture: z.enum(["required", "optional", "none"]).default("optional"),
  required_keys: z.array(z.string()).optional(),
  inputs: z
    .array(
      z.object({
        name: z.string(),
        media_types: z.array(z.string()).default(["*"]),
        required: z.boolean().default(false),
        multiple: z.boolean().default(false),
      }),
    )
    .optional(),
  tensors: z.custom<NonNullable<LoaderDescription["tensors"]>>(isTensors).optional(),
  takes_tensors: z.boolean().optional(),
  embeds: z.enum(["text", "picture"]).optional(),
  facts: z.record(z.string(), z.string()).optional(),
  notes: z.array(z.string()).optional(),
});

function isTensors(value: unknown): boolean {
  const tensor = z.object({
    name: z.string(),
    type: z.string(),
    shape: z.array(z.union([z.number(), z.string()])),
  });
  return z.object({ inputs: z.array(tensor), outputs: z.array(tensor) }).safeParse(value).success;
}

export function encodeDescription(given: LoaderDescription): z.input<typeof description> {
  const { labels, picture, requiredKeys, inputs, tensors, takesTensors, embeds, facts, notes } = given;
  const tensorList = (list: readonly TensorDescription[]) =>
    list.map(({ name, type, shape }) => ({ name, type, shape: [...shape] }));
  return {
    labels: [...labels],
    picture,
    required_keys: requiredKeys && [...requiredKeys],
    inputs: inputs?.map(({ mediaTypes, ...input }) => ({ ...input, media_types: [...mediaTypes] })),
    tensors: tensors && { inputs: tensorList(tensors.inputs), outputs: tensorList(tensors.outputs) },
    takes_tensors: takesTensors,
    embeds,
    facts: facts && { ...facts },
    notes: notes && [...notes],
  };
}

function decodeDescription(given: unknown): LoaderDescription {
  const checked = description.safeParse(given);
  if (!checked.success) {
    const faults = checked.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
    throw new LoaderError(`what describe() returned can't be used: ${faults.join("; ")}`);
  }
  const { labels, picture, required_keys, inputs, tensors, takes_tensors, embeds, facts, notes } =
    checked.data;
  return {
    labels,
    picture,
    ...(required_keys && { requiredKeys: required_keys }),
    ...(inputs && {
      inputs: inputs.map(({ media_types, ...input }): InputDescription => ({
        ...input,
        mediaTypes: media_types,
      })),
    }),
    ...(tensors && { tensors }),
    ...(takes_tensors !== undefined && { takesTensors: takes_tensors }),
    ...(embeds && { embeds }),
    ...(facts && { facts }),
    ...(notes && { notes }),
  };
}

/**
 * What an engine sent. A loader shares its process, so nothing of it is trusted.
 * @throws FrameError where it is no message of an engine
 */
export function decodeFromEngine({ header, body }: Frame): FromEngine {
  const { type } = header;
  if (type === "outcomes") return { type, outcomes: decodeOutcomes(header["outcomes"], body) };
  if (type === "progress") return { type };
  if (type === "batch_limit")
    return { type, batchLimit: wholeNumber(header["batch_limit"], 1), reason: String(header["reason"]) };
  if (type === "load_failed") return { type, error: decodeError(header["error"]) };
  if (type === "ready") {
    try {
      return {
        type,
        description: decodeDescription(header["description"]),
        batchLimit: wholeNumber(header["batch_limit"], 1),
      };
    } catch (error) {
      if (error instanceof LoaderError) return { type: "load_failed", error: toWire(error) };
      throw error;
    }
  }
  throw new FrameError(`its type is ${JSON.stringify(type)}`);
}

function decodeOutcomes(given: unknown, body: Buffer): MemberOutcome[] {
  if (!Array.isArray(given)) throw new FrameError("its outcomes are no list");
  let offset = 0;
  for (const each of given as unknown[]) {
    // Checked where it is, as there are tens of thousands a second of them.
    const outcome = asObject(each, "an outcome");
    wholeNumber(outcome["key"], 0);
    wholeNumber(outcome["batch_size"], 0);
    completeTimings(outcome);
    if (outcome["error"] === undefined) asObject(outcome["response"], "a response");
    else outcome["error"] = decodeError(outcome["error"]);
    if (outcome["outputs"] === undefined) continue;
    if (!Array.isArray(outcome["outputs"])) throw new FrameError("its outputs are no list");
    outcome["outputs"] = outcome["outputs"].map((output: unknown): Output => {
      const { name, media_type: mediaType, bytes } = asObject(output, "an output");
      const start = offset;
      offset += wholeNumber(bytes, 0);
      if (offset > body.length) throw new FrameError("its outputs are longer than its body");
      return { name: String(name), mediaType: String(mediaType), bytes: body.subarray(start, offset) };
    });
  }
  return given as MemberOutcome[];
}

const PHASES = Object.keys(noTimings()) as (keyof PhaseTimings)[];

function completeTimings(outcome: Record<string, unknown>): void {
  const timings = asObject((outcome["timings"] ??= {}), "timings");
  for (const phase of PHASES) {
    const ms = timings[phase];
    if (!(typeof ms === "number" && ms >= 0)) timings[phase] = 0;
  }
}

function decodeError(given: unknown): WireError {
  const { code, title, status, retryable, detail, stack } = asObject(given, "an error");
  const unknown = new LoaderError("");
  return {
    code: typeof code === "string" ? code : unknown.code,
    title: typeof title === "string" ? title : unknown.title,
    status: typeof status === "number" ? status : unknown.status,
    retryable: retryable === true,
    detail: String(detail),
    ...(typeof stack === "string" && { stack }),
  };
}

function asObject(given: unknown, what: string): Record<string, unknown> {
  if (typeof given === "object" && given !== null && !Array.isArray(given))
    return given as Record<string, unknown>;
  throw new FrameError(`${what} is no object`);
}

function wholeNumber(given: unknown, least: number): number {
  if (typeof given === "number" && Number.isInteger(given) && given >= least) return given;
  throw new FrameError(`a number is ${JSON.stringify(given)}`);
}
