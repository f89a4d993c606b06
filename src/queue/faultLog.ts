/** The log of what talks to Redis again and again: a fault is said once, and its repetitions are counted. */
import type { Logger } from "pino";
import { createRepeats, kindOf } from "../core/repeats.ts";
import { redisFaultOf } from "../redis/refusals.ts";

/** @param name begins each line, such as "webhooks" */
export function createFaultLog(log: Logger, name: string): (error: Error) => void {
  const repeats = createRepeats();
  return (error) => {
    const line = `${name}: ${(redisFaultOf(error, "waiting for it") ?? error).message}`;
    if (repeats.allow(kindOf(line), (more) => log.warn(`${line} ${more}`))) log.warn(line);
  };
}
