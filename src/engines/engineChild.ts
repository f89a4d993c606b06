/**
 * One engine process, of Node or of Python, and its pipe: starts it, sends and receives messages, turns what it prints
 * into lines. Whatever comes over the pipe can cost this engine, and nothing else.
 */
import { spawn, type ChildProcess } from "node:child_process";
import type { Duplex, Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { LoaderError, toInfermillError } from "../errors.ts";
import {
  describePythonLoad,
  ENGINE_SCRIPT,
  engineEnvironment,
  findInterpreter,
  findPythonLoader,
  type PythonPlace,
} from "../loaders/python/pythonLoader.ts";
import { encodeFrame, FrameReader } from "./frames.ts";
import {
  decodeFromEngine,
  encodeChunk,
  PIPE,
  PROTOCOL,
  toWire,
  type EngineSpec,
  type FromEngine,
  type Member,
} from "./protocol.ts";

/** A line that is longer is cut into several. */
const MAX_LINE = 8192;
/** How long what a process sent before it ended may take to arrive. */
const DRAIN_LIMIT_MS = 500;

export interface EngineChildEvents {
  message(message: FromEngine): void;
  /** What the loader printed. */
  line(text: string, stream: "stdout" | "stderr"): void;
  /** Last of all: how the process ended, such as "was killed by SIGSEGV". */
  exited(how: string): void;
}

export class EngineChild {
  readonly #child: ChildProcess;
  readonly #pipe: Duplex | undefined;
  readonly #events: EngineChildEvents;
  #broken: string | undefined;
  #isGone = false;

  constructor(spec: EngineSpec, events: EngineChildEvents) {
    this.#events = events;
    const place = findPythonLoader(spec.model, spec.baseDir);
    this.#child = place ? spawnPython(spec, place) : spawnNode(spec);
    this.#pipe = this.#child.stdio[PIPE] as Duplex | undefined;
    this.#watch();
    if (this.pid !== null) void this.#load(spec, place);
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** @throws RangeError where the chunk is too large for one frame, or what JSON.stringify throws */
  sendChunk(members: readonly Member[], isUrgent: boolean): void {
    this.#write(encodeChunk(members, isUrgent));
  }

  /** Asks it to close its loader and end. */
  sendClose(): void {
    this.#write(encodeFrame(JSON.stringify({ type: "close" })));
  }

  /** Ends it at once, and the processes that its loader started. */
  kill(): void {
    if (this.pid === null) return;
    try {
      // It leads a group of its own.
      process.kill(-this.pid, "SIGKILL");
    } catch {
      this.#child.kill("SIGKILL");
    }
  }

  async #load(spec: EngineSpec, place: PythonPlace | undefined): Promise<void> {
    try {
      const load = place ? await describePythonLoad(spec, place) : { spec };
      const message = { type: "load", protocol: PROTOCOL, inputs: spec.inputs, ...load };
      this.#write(encodeFrame(JSON.stringify(message)));
    } catch (error) {
      const known = toInfermillError(error, (detail, options) => new LoaderError(detail, options));
      this.#events.message({ type: "load_failed", error: toWire(known) });
      this.kill();
    }
  }

  #write(parts: readonly Uint8Array[]): void {
    const pipe = this.#pipe;
    // One that died in this moment is dealt with when its exit is told.
    if (!pipe || pipe.destroyed) return;
    if (parts.length === 1) return void pipe.write(parts[0]!);
    pipe.cork();
    for (const part of parts) pipe.write(part);
    pipe.uncork();
  }

  #watch(): void {
    const child = this.#child;
    const { stdout, stderr } = child;
    const lastLines: string[] = [];
    if (stdout) readLines(stdout, (line) => this.#events.line(line, "stdout"));
    if (stderr)
      readLines(stderr, (line) => {
        lastLines.push(line);
        if (lastLines.length > 3) lastLines.shift();
        this.#events.line(line, "stderr");
      });
    const drained = this.#readPipe();
    child.on("error", (error) => {
      // What never started tells no exit.
      if (this.pid === null) this.#end(`could not be started (${error.message})`);
    });
    child.once("exit", (code, signal) => {
      // Those that it started hold nothing of ours any more.
      this.kill();
      const how = this.#broken ?? (signal ? `was killed by ${signal}` : `exited with code ${code}`);
      const limit = new Promise((resolve) => setTimeout(resolve, DRAIN_LIMIT_MS).unref());
      void Promise.race([drained, limit]).then(() => this.#end(how));
    });
  }

  #end(how: string): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#pipe?.destroy();
    this.#events.exited(how);
  }

  /** @returns what resolves when nothing more can come */
  #readPipe(): Promise<void> {
    const pipe = this.#pipe;
    if (!pipe) return Promise.resolve();
    const frames = new FrameReader();
    const giveUp = (reason: string) => {
      this.#broken ??= reason;
      pipe.destroy();
      this.kill();
    };
    pipe.on("error", () => {});
    pipe.on("data", (piece: Buffer) => {
      if (this.#broken !== undefined) return;
      let messages: FromEngine[] = [];
      try {
        messages = frames.push(piece).map(decodeFromEngine);
      } catch (error) {
        return giveUp(`sent what is no message (${(error as Error).message}) and was killed`);
      }
      for (const message of messages) this.#events.message(message);
    });
    return new Promise((resolve) => {
      pipe.once("close", () => {
        resolve();
        // The loader may have closed it: nothing can reach this process any more.
        if (this.#child.exitCode === null && this.#child.signalCode === null)
          setTimeout(() => {
            if (this.#child.exitCode === null && this.#child.signalCode === null)
              giveUp("closed its pipe and was killed");
          }, DRAIN_LIMIT_MS).unref();
      });
    });
  }
}

const STDIO = ["ignore", "pipe", "pipe", "pipe"] as const;

function spawnNode({ model }: EngineSpec): ChildProcess {
  const script = import.meta.url.endsWith(".ts") ? "./node/engine.ts" : "./node/engine.js";
  return spawn(process.execPath, [...process.execArgv, fileURLToPath(new URL(script, import.meta.url))], {
    // libvips decodes on libuv's threads; two keep one engine busy, more only fight over its core.
    env: { ...process.env, UV_THREADPOOL_SIZE: "2", ...model.env },
    stdio: [...STDIO],
    // A group of its own: what the terminal sends is the worker's to act on, and a kill reaches what the loader started.
    detached: true,
  });
}

function spawnPython(spec: EngineSpec, place: PythonPlace): ChildProcess {
  const interpreter = findInterpreter(spec.model, place);
  // Where there was one at the start and is none any more, it may come back.
  return spawn(typeof interpreter === "string" ? interpreter : "python3", ["-u", ENGINE_SCRIPT], {
    env: engineEnvironment(spec),
    stdio: [...STDIO],
    detached: true,
  });
}

/** Calls back with each line, without its end and without terminal codes. */
function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("error", () => {});
  stream.on("data", (text: string) => {
    const lines = (rest + text).split(/\r?\n|\r/);
    rest = lines.pop()!;
    while (rest.length > MAX_LINE) {
      lines.push(rest.slice(0, MAX_LINE));
      rest = rest.slice(MAX_LINE);
    }
    for (const line of lines) if (line.trim() !== "") onLine(line.slice(0, MAX_LINE));
  });
  stream.on("end", () => {
    if (rest.trim() !== "") onLine(rest);
  });
}
