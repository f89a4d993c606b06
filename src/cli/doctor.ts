/** `infermill doctor`: what this machine and a configuration lack, a line for each check, with what to do. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { isatty } from "node:tty";
import picocolors from "picocolors";
import { DEFAULT_FILE, loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { isLoopback } from "../core/loopback.ts";
import { ConfigError } from "../errors.ts";
import {
  checkDataFolder,
  checkDevices,
  checkGpus,
  checkModels,
  checkNode,
  checkOnnxRuntime,
  checkPorts,
  checkRedisServer,
  checkRoots,
  checkSharp,
  type Diagnosis,
} from "./doctorChecks.ts";
import { EXIT_FAILED } from "./exit.ts";

const colours = picocolors.createColors(picocolors.isColorSupported && isatty(1));
const STATUS_COLOURS = { ok: colours.green, warning: colours.yellow, problem: colours.red };
const STATUS_WIDTH = 9;
const CHECK_WIDTH = 15;

/** Prints every check; the exit code is 1 where there is a problem, warnings leave it 0. */
export async function doctor(options: { config?: string; json?: boolean }): Promise<void> {
  const { config, diagnoses: ofConfig } = await readConfig(options.config);
  const diagnoses: Diagnosis[] = [];
  const add = (found: readonly Diagnosis[]) => {
    diagnoses.push(...found);
    if (!options.json) for (const each of found) console.log(lineOf(each));
  };
  add([checkNode()]);
  add(await checkSharp());
  add(await checkOnnxRuntime());
  add(await checkGpus());
  add(ofConfig);
  const {
    host = "127.0.0.1",
    port = 8448,
    grpc_port,
    data_dir = resolve("data"),
    redis_url,
    redis_tls,
  } = config ?? {};
  add(await checkDataFolder(data_dir));
  add(await checkPorts(host, port, grpc_port));
  add(
    await checkRedisServer(
      { url: redis_url, tls: redis_tls },
      options.json ? () => {} : (line) => console.error(line),
    ),
  );
  if (config) {
    add(await checkRoots(config));
    add(await checkDevices(config));
    add(await checkModels(config));
  }

  const count = (status: Diagnosis["status"]) => diagnoses.filter((each) => each.status === status).length;
  const [problems, warnings] = [count("problem"), count("warning")];
  if (options.json) console.log(JSON.stringify({ problems, warnings, checks: diagnoses }, null, 2));
  else console.log(`\n${amount(problems, "problem")}, ${amount(warnings, "warning")}.`);
  if (problems > 0) process.exitCode = EXIT_FAILED;
}

/** The configuration without a look at its models, which are checked one by one. */
async function readConfig(
  file: string | undefined,
): Promise<{ config?: Config; diagnoses: readonly Diagnosis[] }> {
  if (file === undefined && !process.env["INFERMILL_CONFIG"] && !existsSync(DEFAULT_FILE)) {
    const found = `there is no ${DEFAULT_FILE} in this folder; the defaults are checked`;
    const advice = "`infermill init` writes one, --config FILE names another";
    return { diagnoses: [{ check: "configuration", status: "warning", found, advice }] };
  }
  const warnings: Diagnosis[] = [];
  try {
    const config = await loadConfig({
      file,
      onWarning: (found) => warnings.push({ check: "configuration", status: "warning", found }),
    });
    const isOpen = config.api_keys.length === 0 && !isLoopback(config.host);
    if (isOpen)
      warnings.push({
        check: "configuration",
        status: "warning",
        found: `there are no api_keys, and ${config.host} is reached from other machines: whoever reaches it may do everything`,
        advice: "name api_keys, or see that only those who may can reach it",
      });
    return { config, diagnoses: [{ check: "configuration", status: "ok", found: config.file }, ...warnings] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const diagnoses = error.faults.map(({ source, key, problem }): Diagnosis => ({
      check: "configuration",
      status: "problem",
      found: `${source}: ${key} ${problem}`,
    }));
    return { diagnoses };
  }
}

function lineOf({ check, status, found, advice }: Diagnosis): string {
  const indent = " ".repeat(STATUS_WIDTH + CHECK_WIDTH);
  const lines = [found, ...(advice === undefined ? [] : [`→ ${advice}`])];
  const text = lines.join("\n").replaceAll("\n", `\n${indent}`);
  return `${STATUS_COLOURS[status](status.padEnd(STATUS_WIDTH))}${check.padEnd(CHECK_WIDTH)}${text}`;
}

function amount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
