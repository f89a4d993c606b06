/** What is wrong with a loader in Python, as far as it shows without importing its packages. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import type { ModelConfig } from "../../config/schema.ts";
import { ENGINE_SCRIPT, findInterpreter, type PythonPlace, type PythonProblem } from "./pythonLoader.ts";

const CHECK_LIMIT_MS = 60_000;

/** @returns the faults of the model's section; keys are relative to it */
export async function checkPythonLoader(model: ModelConfig, place: PythonPlace): Promise<PythonProblem[]> {
  if (process.platform === "win32")
    return [
      { key: "model_loader_file", problem: "is in Python, which infermill runs on Linux and macOS only" },
    ];
  const devices = typeof model.device === "string" ? [model.device] : model.device;
  if (devices.includes("webgpu"))
    return [{ key: "device", problem: 'must be "cpu" or "cuda" for a loader in Python, got "webgpu"' }];
  if (place.class !== model.loader)
    return [
      {
        key: "model_loader_file",
        problem: `must name the same class as loader (${model.loader}), got ${JSON.stringify(place.class)}`,
      },
    ];
  if (place.file !== undefined && !existsSync(place.file))
    return [
      {
        key: "model_loader_file",
        problem: place.file.endsWith("__init__.py")
          ? `must be a folder with __init__.py or custom_model_loader.py, there is no ${place.file}`
          : `must be a Python file, there is none at ${place.file}`,
      },
    ];
  const interpreter = findInterpreter(model, place);
  if (typeof interpreter !== "string") return [interpreter];
  const { output, reason } = await run(interpreter, JSON.stringify({ ...place, loader: place.class }), {
    ...process.env,
    ...model.env,
  });
  try {
    return (JSON.parse(output) as { faults: PythonProblem[] }).faults;
  } catch {
    return [{ key: "python", problem: `${interpreter} can't be run as Python 3.9 or later: ${reason}` }];
  }
}

function run(
  interpreter: string,
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<{ output: string; reason: string }> {
  return new Promise((resolve) => {
    const child = spawn(interpreter, [ENGINE_SCRIPT, "--check"], { env, timeout: CHECK_LIMIT_MS });
    let output = "";
    let errors = "";
    child.stdout.on("data", (piece: Buffer) => (output += piece.toString()));
    child.stderr.on("data", (piece: Buffer) => (errors += piece.toString()));
    child.stdin.on("error", () => {});
    child.on("error", (error) => resolve({ output: "", reason: error.message }));
    child.on("close", (code, signal) => {
      const lastLine = errors.trim().split("\n").at(-1);
      resolve({ output, reason: lastLine || `it ended with ${signal ?? `code ${code}`}` });
    });
    child.stdin.end(input);
  });
}
