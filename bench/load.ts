/** The load client: wrk where the PATH has it, since it costs a quarter of one in Node, or else `client.ts`. */
import { fork, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Load, LoadFigures } from "./client.ts";
import { cpuSeconds } from "./processes.ts";
import { options } from "./setting.ts";

const SCRIPT = fileURLToPath(new URL("wrk.lua", import.meta.url));
// A quick run takes the client that waits for every answer: on a busy machine wrk's second may end before the first.
const WRK = options.quick
  ? undefined
  : /^wrk (\S+)/.exec(spawnSync("wrk", ["-v"], { encoding: "utf8" }).stdout ?? "")?.[1];

/** Which client it is, for the report. */
export const LOAD_CLIENT = WRK === undefined ? "one in Node, not wrk" : `wrk ${WRK}`;

/** Sends one thing over and over. wrk counts a status other than 2xx as an error, and doesn't read answers. */
export async function load(what: Load): Promise<LoadFigures> {
  return WRK === undefined ? await loadFromNode(what) : await loadFromWrk(what);
}

async function loadFromNode(what: Load): Promise<LoadFigures> {
  const child = fork(fileURLToPath(new URL("client.ts", import.meta.url)));
  try {
    return await new Promise((resolve, reject) => {
      child.once("message", (figures) => resolve(figures as LoadFigures));
      child.once("exit", (code) => reject(new Error(`the load client exited with code ${code}`)));
      child.send(what);
    });
  } finally {
    child.kill();
  }
}

async function loadFromWrk({ url, file, headers, connections, seconds }: Load): Promise<LoadFigures> {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const child = spawn(
    "wrk",
    ["-t1", `-c${connections}`, `-d${Math.ceil(seconds)}s`, "--timeout", "60s", "-s", SCRIPT, url],
    {
      env: { ...process.env, BODY: file, HEADERS: lines.join("\n") },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const { output, cpu } = await outputAndCpu(child);
  const line = /^FIGURES (.*)$/m.exec(output)?.[1];
  if (line === undefined) throw new Error(`wrk printed no figures:\n${output}`);
  const figures = JSON.parse(line) as Omit<LoadFigures, "rate" | "clientCpuMs"> & { seconds: number };
  return {
    ...figures,
    rate: (figures.requests - figures.errors) / figures.seconds,
    clientCpuMs: (1000 * cpu) / figures.requests,
  };
}

/** What a process prints, and its CPU time as it was last seen. */
async function outputAndCpu(child: ChildProcess): Promise<{ output: string; cpu: number }> {
  let output = "";
  let cpu = 0;
  child.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const timer = setInterval(() => (cpu = Math.max(cpu, cpuSeconds([child.pid!]))), 100);
  await new Promise((resolve) => child.once("close", resolve));
  clearInterval(timer);
  return { output, cpu };
}
