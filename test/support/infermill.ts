/** Real infermill processes for tests: what `dist` holds, in a folder of their own, gone without a trace afterwards. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Prediction } from "./answers.ts";
import { testRedisEnv } from "./redis.ts";

/** The command as it is shipped. */
export const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
export const SCRIPTED_LOADER = fileURLToPath(new URL("../loaders/scripted.ts", import.meta.url));

export interface InfermillProcess {
  child: ChildProcess;
  /** All that it wrote so far, stdout and stderr. */
  output(): string;
  /** Resolves when the output matches; rejects with the output when the process ends before or `ms` passed. */
  printed(pattern: RegExp, ms?: number): Promise<RegExpExecArray>;
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

export function runInfermill(
  args: string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string; hasChannel?: boolean } = {},
): InfermillProcess {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: {
      ...testRedisEnv,
      INFERMILL_CONFIG: "",
      HOST: "",
      PORT: "",
      INFERMILL_DATA_DIR: "",
      NO_COLOR: "1",
      ...options.env,
    },
    cwd: options.cwd,
    // A channel as child_process.fork() opens it, and pm2.
    stdio: ["ignore", "pipe", "pipe", ...(options.hasChannel ? (["ipc"] as const) : [])],
  });
  let text = "";
  let changed = () => {};
  const collect = (chunk: Buffer) => {
    text += chunk;
    changed();
  };
  child.stdout!.on("data", collect);
  child.stderr!.on("data", collect);
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once("close", (code, signal) => resolve({ code, signal })),
  );
  return {
    child,
    exited,
    output: () => text,
    printed: (pattern, ms = 60_000) =>
      new Promise((resolve, reject) => {
        const fail = (why: string) =>
          reject(new Error(`${why} before it printed ${String(pattern)}:\n${text}`));
        const timer = setTimeout(() => fail(`${ms} ms passed`), ms);
        changed = () => {
          const match = pattern.exec(text);
          if (!match) return;
          clearTimeout(timer);
          resolve(match);
        };
        void exited.then(({ code, signal }) => {
          clearTimeout(timer);
          fail(`infermill ended (${signal ?? code})`);
        });
        changed();
      }),
  };
}

export interface TestInfermill extends InfermillProcess {
  url: string;
  folder: string;
  /** Ends it as Ctrl-C would and removes its folder. */
  stop(): Promise<void>;
}

/** Starts everything on a free port with these settings, in a folder of its own; resolves once it is ready. */
export async function startInfermill(
  config: Record<string, unknown>,
  env: NodeJS.ProcessEnv = {},
): Promise<TestInfermill> {
  const folder = mkdtempSync(join(tmpdir(), "infermill-"));
  const file = join(folder, "infermill.json");
  writeFileSync(file, JSON.stringify({ port: 0, data_dir: "data", log_level: "warn", ...config }));
  const running = runInfermill(["start", "--config", file], { env });
  const stop = async () => {
    running.child.kill("SIGINT");
    await running.exited;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const [, url] = await running.printed(/is ready at (\S+)/);
    return { ...running, url: url!, folder, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Sends one request dictionary and answers its prediction; `wait` in seconds. */
export async function submit(
  url: string,
  model: string,
  request: unknown,
  wait = 60,
  query = "",
): Promise<Prediction> {
  const answer = await fetch(`${url}/v1/models/${model}/predictions${query}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: `wait=${wait}` },
    body: JSON.stringify(request),
  });
  const body = (await answer.json()) as Prediction & { detail?: string };
  if (!answer.ok) throw new Error(`${answer.status}: ${body.detail}`);
  return body;
}

/** Sends a picture as it is and answers its prediction. */
export async function upload(
  url: string,
  model: string,
  picture: Buffer,
  type = "image/jpeg",
  query = "",
): Promise<Prediction> {
  const answer = await fetch(`${url}/v1/models/${model}/predictions${query}`, {
    method: "POST",
    headers: { "Content-Type": type, Prefer: "wait=60" },
    body: new Uint8Array(picture),
  });
  const body = (await answer.json()) as Prediction & { detail?: string };
  if (!answer.ok) throw new Error(`${answer.status}: ${body.detail}`);
  return body;
}

/** Polls a condition until it holds. */
export async function until<T>(
  condition: () => Promise<T | undefined | false> | T | undefined | false,
  what: string,
  ms = 60_000,
): Promise<T> {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
