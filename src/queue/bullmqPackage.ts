/**
 * BullMQ's classes and scripts, by way of `require`: an `import` of the package would have Node parse each of its 170
 * CommonJS files for names that they export, which takes longer than to load them, in every process that starts.
 */
import { createRequire } from "node:module";
import type * as BullMQ from "bullmq";

export const { DelayedError, Job, Queue, QueueKeys, UnrecoverableError, WaitingError, Worker } =
  createRequire(import.meta.url)("bullmq") as typeof BullMQ;

// The defaults are BullMQ's own.
/* oxlint-disable typescript/no-explicit-any */
export type Job<Data = any, Result = any, Name extends string = string> = BullMQ.Job<Data, Result, Name>;
export type Queue<Data = any, Result = any, Name extends string = string> = BullMQ.Queue<Data, Result, Name>;
export type Worker<Data = any, Result = any, Name extends string = string> = BullMQ.Worker<
  Data,
  Result,
  Name
>;
