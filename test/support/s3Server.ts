/** A real S3 server on this machine, in a process of its own that can be killed and started again: moto's, from PyPI. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { hasPackage, pythonWithPackages, whyNoPackages } from "./python.ts";

const SCRIPT = fileURLToPath(new URL("./s3_server.py", import.meta.url));

export const whyNoS3 = whyNoPackages || (!hasPackage("moto") && "no moto in the Python environment");

/** For processes that reach it. */
export const S3_CREDENTIALS = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "test" };

export interface S3Server {
  readonly endpoint: string;
  /** "GET /bucket/key 200", of all that was asked so far. */
  readonly requests: string[];
  /** Kills it in the middle of whatever it does. */
  kill(): Promise<void>;
  /** Starts it again on the same port, with what its folder holds. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** @param folder whose folders are the buckets, with their objects */
export async function startS3Server(folder: string): Promise<S3Server> {
  const requests: string[] = [];
  let child: ChildProcess | undefined;
  const start = async (port: number): Promise<number> => {
    const env = { ...process.env, PYTHONDONTWRITEBYTECODE: "1" };
    child = spawn(`${pythonWithPackages}/bin/python`, [SCRIPT, folder, String(port)], {
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout! });
    const [first] = (await once(lines, "line")) as [string];
    lines.on("line", (line) => requests.push(line));
    return Number(first);
  };
  const kill = async () => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const port = await start(0);
  return {
    endpoint: `http://127.0.0.1:${port}`,
    requests,
    kill,
    restart: async () => void (await start(port)),
    stop: kill,
  };
}
