/**
 * Ends this process when its event loop has been blocked for too long: nothing in it could notice, and whoever started
 * it starts it again. The thread that watches shares a counter with the event loop.
 */
import { Worker } from "node:worker_threads";

const TICK_MS = 1000;

/** Runs in a thread, and has nothing but what stands here. A process that was frozen (SIGSTOP, a laptop's lid) counts one tick. */
const WATCH = `
const { workerData: { counter, tickMs, limitMs, name } } = require("node:worker_threads");
const { writeSync } = require("node:fs");
let seen = -1;
let still = 0;
for (;;) {
  Atomics.wait(counter, 1, 0, tickMs);
  if (Atomics.load(counter, 1) !== 0) break;
  const now = Atomics.load(counter, 0);
  still = now === seen ? still + tickMs : 0;
  seen = now;
  if (still < limitMs) continue;
  try {
    writeSync(2, JSON.stringify({ level: 60, time: new Date().toISOString(), pid: process.pid, name, msg: "the event loop has been blocked for " + limitMs / 1000 + " s: ending the process" }) + "\\n");
  } catch {}
  process.kill(process.pid, "SIGKILL");
}`;

export function watchEventLoop(name: string, limitMs: number): { stop(): void } {
  const counter = new Int32Array(new SharedArrayBuffer(8));
  const beat = setInterval(() => Atomics.add(counter, 0, 1), TICK_MS / 4).unref();
  const thread = new Worker(WATCH, {
    eval: true,
    execArgv: [],
    workerData: { counter, tickMs: TICK_MS, limitMs, name },
    resourceLimits: { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2 },
  });
  // Without its thread the process is only unwatched.
  thread.on("error", (error) =>
    console.error(`the event loop of this ${name} is not watched: ${error.message}`),
  );
  thread.unref();
  return {
    stop() {
      clearInterval(beat);
      Atomics.store(counter, 1, 1);
      Atomics.notify(counter, 1);
    },
  };
}
