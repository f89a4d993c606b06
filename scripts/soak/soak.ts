/**
 * `npm run soak`: two apis, three workers, two coordinators and a Redis Cluster under a mixed load, with a fault every ten
 * seconds: a process is killed or frozen for longer than its locks hold, connections are cut, a master of Redis is killed
 * or replaced. Outside CI. Nothing that was accepted may be lost or doubled; a table and a plot say what was seen.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { processesBelow } from "../../test/support/processes.ts";
import { describeScript, number, redisKind } from "../options.ts";
import { createRandom, pick, type Random } from "../random.ts";
import { startLoad, type Verdict } from "./load.ts";
import { plot, type Fault, type Sample } from "./plot.ts";
import { startStack, type Stack } from "./stack.ts";

const options = describeScript("soak", "A mixed load on many processes, with a fault every ten seconds.")
  .addOption(number("minutes", "how long", 15))
  .addOption(number("seed", "of what is random", 1))
  .addOption(number("clients", "that submit side by side", 12))
  .addOption(redisKind("cluster"))
  .option("--plot <file>", "where the plot goes", "data/soak.png")
  .parse()
  .opts<{ minutes: number; seed: number; clients: number; redis: "single" | "cluster"; plot: string }>();
const { minutes, seed, clients } = options;

const FAULT_INTERVAL_MS = 10_000;
const SAMPLE_INTERVAL_MS = 5000;
/** Longer than a lock holds (10 s), shorter than a coordinator takes for hung (30 s). */
const FREEZE_MS = 14_000;
/** The last faults are over before the end is waited for. */
const QUIET_MS = 20_000;

async function injectFault(
  stack: Stack,
  random: Random,
  frozen: Set<number>,
): Promise<Omit<Fault, "seconds">> {
  const draw = random();
  if (draw < 0.2) {
    await stack.redis.cut();
    return { kind: "cut connections", what: "all of them to Redis" };
  }
  if (draw < 0.4) {
    const isOrdered = random() < 0.4;
    const what = isOrdered ? await stack.redis.failOver() : await stack.redis.kill();
    if (what) return { kind: isOrdered ? "failover" : "kill Redis", what };
  }
  const members = stack.members.filter(({ pid }) => pid !== undefined && !frozen.has(pid));
  const { name, pid } = pick(random, members);
  if (draw < 0.6) {
    frozen.add(pid!);
    process.kill(pid!, "SIGSTOP");
    setTimeout(() => {
      frozen.delete(pid!);
      if (stack.members.some((member) => member.pid === pid)) process.kill(pid!, "SIGCONT");
    }, FREEZE_MS);
    return { kind: "freeze", what: name };
  }
  const engines = name.startsWith("worker") && random() < 0.5 ? processesBelow(pid!) : [];
  process.kill(engines.length > 0 ? pick(random, engines) : pid!, "SIGKILL");
  return { kind: "kill -9", what: engines.length > 0 ? `an engine of ${name}` : name };
}

/** Of each process in MiB; engines count together, and so do the servers of Redis. */
function readMemory({ members, redis }: Stack): Map<string, number> {
  const pids = members.flatMap(({ name, pid }) =>
    pid === undefined
      ? []
      : [[pid, name] as const, ...processesBelow(pid).map((engine) => [engine, `${name}: engines`] as const)],
  );
  const names = new Map<number, string>([...pids, ...redis.pids().map((pid) => [pid, "Redis"] as const)]);
  const table = execFileSync("ps", ["-A", "-o", "pid=,rss="], { encoding: "utf8" });
  const memory = new Map<string, number>();
  for (const line of table.trim().split("\n")) {
    const [pid, kib] = line.trim().split(/\s+/).map(Number) as [number, number];
    const name = names.get(pid);
    if (name !== undefined) memory.set(name, (memory.get(name) ?? 0) + kib / 1024);
  }
  return memory;
}

function printTable(verdict: Verdict, samples: readonly Sample[], faults: readonly Fault[]): void {
  const { bulk, webhooks, lost, doubled, outcomes, retries } = verdict;
  const counts = (of: Iterable<readonly [string, number]>) =>
    [...of].map(([name, count]) => `${count.toLocaleString("en-US")} × ${name}`).join(", ") || "none";
  const kinds = new Map<string, number>();
  for (const { kind } of faults) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  const rows = [
    ["accepted", `${verdict.accepted} predictions, ${bulk.entries} entries of ${bulk.runs} bulk runs`],
    ["finished", `${verdict.finished} predictions (${counts(outcomes)}), ${bulk.lines} entries`],
    ["lost", String(lost.length)],
    ["doubled", String(doubled.length)],
    [
      "webhooks",
      `${webhooks.expected - webhooks.missing.length} of ${webhooks.expected} delivered, ${webhooks.repeated} of them more than once`,
    ],
    ["faults", counts(kinds)],
    ["settled by a retry", counts(retries)],
  ];
  for (const [name, value] of rows) console.log(`${name!.padEnd(20)}${value}`);
  console.log(
    `\n${"memory, MiB".padEnd(24)}${["start", "most", "end"].map((head) => head.padStart(8)).join("")}`,
  );
  for (const name of [...new Set(samples.flatMap(({ memory }) => [...memory.keys()]))].toSorted()) {
    const seen = samples.flatMap(({ memory }) => memory.get(name) ?? []);
    const figures = [seen[0]!, Math.max(...seen), seen.at(-1)!];
    console.log(
      `${name.padEnd(24)}${figures.map((figure) => String(Math.round(figure)).padStart(8)).join("")}`,
    );
  }
}

const folder = mkdtempSync(join(tmpdir(), "infermill-soak-"));
const random = createRandom(seed);
const stack = await startStack(folder, options.redis);
for (const signal of ["SIGINT", "SIGTERM"] as const)
  process.once(signal, () => void stack.stop().finally(() => process.exit(130)));
const startedAt = Date.now();
const seconds = () => (Date.now() - startedAt) / 1000;
const samples: Sample[] = [];
const faults: Fault[] = [];
let isSound = false;
try {
  const load = await startLoad(stack.urls, clients, seed);
  let counted = 0;
  let sampledAt = Date.now();
  const sample = () => {
    const now = Date.now();
    const rate = ((load.count() - counted) * 1000) / Math.max(1, now - sampledAt);
    samples.push({ seconds: seconds(), memory: readMemory(stack), rate });
    [counted, sampledAt] = [load.count(), now];
  };
  // With a heap that has met its load.
  await sleep(SAMPLE_INTERVAL_MS);
  sample();
  const sampling = setInterval(sample, SAMPLE_INTERVAL_MS);
  const frozen = new Set<number>();
  while (seconds() < minutes * 60) {
    const fault = { seconds: seconds(), ...(await injectFault(stack, random, frozen)) };
    faults.push(fault);
    console.error(`${Math.round(fault.seconds)} s: ${fault.kind}: ${fault.what}; ${load.count()} settled`);
    await sleep(FAULT_INTERVAL_MS);
  }
  await sleep(QUIET_MS);
  console.error("no more faults; waiting until everything is settled");
  const verdict = await load.finish();
  clearInterval(sampling);
  sample();
  await stack.stop();
  printTable(verdict, samples, faults);
  const file = resolve(options.plot);
  mkdirSync(dirname(file), { recursive: true });
  await plot(samples, faults, file);
  console.log(`\nplot: ${file}`);
  const { lost, doubled, webhooks } = verdict;
  const problems = [
    ...lost.map((each) => `lost: ${each}`),
    ...doubled.map((each) => `doubled: ${each}`),
    ...webhooks.missing.map((each) => `no webhook: ${each}`),
    ...verdict.faults,
    ...stack.fallen,
  ];
  for (const problem of problems.slice(0, 50)) console.error(problem);
  isSound = problems.length === 0;
  console.log(
    isSound ? "no fault" : `${problems.length} problems (--seed ${seed}); logs: ${join(folder, "logs")}`,
  );
} finally {
  await stack.stop();
  if (isSound) rmSync(folder, { recursive: true, force: true });
}
process.exit(isSound ? 0 : 1);
