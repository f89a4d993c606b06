/**
 * Measures infermill and its peers in one run: all servers of a row are up at once and take turns, round after round. A
 * ratio is the median of the rounds' ratios, so what the machine does meanwhile hits both.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connectRedis } from "../../src/redis/connections.ts";
import { encodeModel } from "../../src/models/onnxProto.ts";
import { findSamplePhoto } from "../../src/models/samplePhotos.ts";
import { checkFindings, checkNumbers, findingsOf, numbersOf } from "../answers.ts";
import { send, type LoadFigures } from "../client.ts";
import { openEnvironment } from "../environments.ts";
import { load } from "../load.ts";
import { perceptron, wholeWordTokenizer } from "../models.ts";
import { cpuSeconds, machineSeconds, memoryBytes, pause, resume, stopProcesses } from "../processes.ts";
import {
  chooseDetector,
  configFor,
  CONNECTIONS,
  CORES,
  folder,
  linkPictures,
  MAIN,
  makeLargePhoto,
  median,
  model,
  options,
  picture,
  redis,
  ROUNDS,
  say,
  SECONDS,
  sharedModel,
  type PictureModel,
} from "../setting.ts";
import type { Body } from "./bodies.ts";
import {
  askByReference,
  environmentOf,
  FOLDER_PEERS,
  HERE,
  INFERMILL,
  PEERS,
  type Ask,
  type Content,
  type Peer,
  type Place,
  type Task,
} from "./peers.ts";

/** Share of the machine that others may take before a measurement is repeated. */
const MAX_FOREIGN_SHARE = 0.1;
/** Of one core: whoever takes less has worked off what a load left behind. */
const IDLE_SHARE = 0.2;
const START_TIMEOUT_MS = 90_000;
/** Of each server, in the first round of its first row: V8 takes its time to optimise what runs a hundred times a second. */
const WARM_UP_SECONDS = 20;
/** URLs of the servers that were warmed up. */
const warm = new Set<string>();
/** Rows of slow requests are measured for so much longer, or a batch more or less would show. */
const LONGER = { P: 3, F: 3 } as Partial<Record<RowName, number>>;
const ROW_LENGTH = 256;
const SUBMITTED = options.quick ? 64 : 1000;
const FILES = options.files ?? (options.quick ? 60 : 2000);
const WORDS = Array.from({ length: 16 }, (_, index) => `word${index}`);

export const ROW_TITLES = {
  A: `uploads of a 201 KB JPEG, ${CONNECTIONS} connections`,
  P: `uploads of a 12-megapixel photo, ${CONNECTIONS} connections`,
  D: "one upload at a time",
  G: "start, and memory after the load",
  B: `${SUBMITTED} uploads submitted, then all results collected, ${CONNECTIONS} connections`,
  F: `uploads to a detector, ${CONNECTIONS} connections`,
  E: `a request of JSON to no model, ${CONNECTIONS} connections`,
  T: `${ROW_LENGTH} floats in JSON to a small network, ${CONNECTIONS} connections`,
  X: `a text of ${WORDS.length} words to MiniLM, ${CONNECTIONS} connections`,
  C: `a folder of ${FILES} JPEGs to a file of results, whole commands`,
};
export type RowName = keyof typeof ROW_TITLES;

/** The figure by which a row compares: results a second, but for latency and memory, where less is better. */
export const HEADLINES: Partial<Record<RowName, string>> = { D: "p50", G: "memory" };

/** What one server did in one row. */
export interface Entry {
  name: string;
  label: string;
  /** Medians of the rounds. */
  figures: Record<string, number>;
  /** Medians of the figures' ratios to infermill's of the same round. */
  ratios: Record<string, number>;
  /** Lowest and highest ratio of the row's headline. */
  range: [number, number];
}

export interface PeerRow {
  name: RowName;
  title: string;
  entries: Entry[];
}

export interface PeerReport {
  rows: PeerRow[];
  leftOut: string[];
  /** Versions of each environment's packages. */
  versions: Record<string, Record<string, string>>;
}

/** A server that is up. */
interface Up {
  peer: Peer;
  ask: Ask;
  url: string;
  children: ChildProcess[];
  /** Seconds from each start to the first right answer. */
  startSeconds: number[];
}

type Round = Map<string, Record<string, number>>;

const report: PeerReport = { rows: [], leftOut: [], versions: { node: nodePackages() } };
const connection = await connectRedis({ url: redis.url, tls: undefined }, "worker");
const redisPid = Number(/process_id:(\d+)/.exec(await connection.info("server"))![1]);
connection.disconnect();
const redisSocket = fileURLToPath(redis.url.replace(/^\w+(\+\w+)?:/, "file:"));

/** @param names Peers to measure beside infermill; all where none is named. @param letters Rows; all where none is named. */
export async function measurePeers(
  names: readonly string[],
  letters: readonly string[] = Object.keys(ROW_TITLES),
): Promise<PeerReport> {
  const known = [...PEERS, ...FOLDER_PEERS].map(({ name }) => name);
  refuseUnknown("peer", names, known);
  refuseUnknown("row", letters, Object.keys(ROW_TITLES));
  const isWanted = ({ name }: { name: string }) => names.length === 0 || names.includes(name);
  const has = (...some: RowName[]) => some.some((letter) => letters.includes(letter));
  const doing = (task: Task) => PEERS.filter((peer) => isWanted(peer) && peer.asks[task]);

  const section = async <P>(some: RowName[], peers: P[], measure: (peers: P[]) => Promise<void>) => {
    if (!has(...some) || peers.length === 0) return;
    // What was measured before is kept where one section fails.
    await measure(peers).catch((error: unknown) =>
      leaveOut(`${some.join(", ")}: ${(error as Error).message}`),
    );
  };
  await section(["A", "P", "D", "G", "B"], doing("classifier"), (peers) => measureClassifier(peers, has));
  await section(["F"], doing("detector"), (peers) => measureDetector(peers, has("G")));
  await section(["E"], doing("echo"), (peers) => measureTask("E", "echo", peers, echoModel()));
  await section(["T"], doing("rows"), (peers) => measureTask("T", "rows", peers, rowsModel()));
  await section(["X"], doing("texts"), measureTexts);
  await section(["C"], FOLDER_PEERS.filter(isWanted), measureFolder);
  return report;
}

/** Versions of what infermill and BullMQ by hand stand on. */
function nodePackages(): Record<string, string> {
  const names = ["bullmq", "express", "onnxruntime-node", "sharp"];
  const versionOf = (name: string) => {
    const file = new URL(`../../node_modules/${name}/package.json`, import.meta.url);
    return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
  };
  return Object.fromEntries(names.map((name) => [name, versionOf(name)]));
}

function refuseUnknown(kind: string, given: readonly string[], known: readonly string[]): void {
  const unknown = given.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`unknown ${kind} ${unknown}, known are ${known.join(", ")}`);
}

async function measureClassifier(
  peers: readonly Peer[],
  has: (...some: RowName[]) => boolean,
): Promise<void> {
  const servers = has("A", "P", "D", "G") ? peers : peers.filter(({ collect }) => collect);
  const up = await startAll("classifier", servers, ofPictures(model), contentOf(picture), has("G") ? 3 : 1);
  try {
    // Memory is seen after the load.
    if (has("A", "G")) await measureLoad("A", up, contentOf(picture), CONNECTIONS);
    if (has("G")) reportFootprint(`${ROW_TITLES.G} of ${model.name}`, up);
    if (has("P")) {
      const large = contentOf(await makeLargePhoto());
      await measureLoad("P", await answeringAlike(up, large), large, CONNECTIONS);
    }
    if (has("D")) {
      const peer = { ...INFERMILL, name: "infermill-reference", label: "infermill, by reference" };
      const byReference = { ...up[0]!, peer, ask: askByReference("photos/picture.jpg") };
      await measureLoad("D", [...up, byReference], contentOf(picture), 1);
    }
    const collecting = up.filter(({ peer }) => peer.collect);
    if (has("B")) await measureRounds("B", collecting, submitAndCollect);
  } finally {
    await stopAll(up);
  }
}

async function measureDetector(peers: readonly Peer[], withFootprint: boolean): Promise<void> {
  const detector = await chooseDetector();
  if (!detector) return leaveOut("F: there is no file of YOLOv8n (--detector)");
  const up = await startAll("detector", peers, ofPictures(detector), contentOf(picture));
  try {
    await measureLoad("F", up, contentOf(picture), CONNECTIONS);
    if (withFootprint) reportFootprint(`${ROW_TITLES.G} of ${detector.name}`, up);
  } finally {
    await stopAll(up);
  }
}

async function measureTexts(peers: readonly Peer[]): Promise<void> {
  const file = options.textModel ?? sharedModel("any/minilm_int8/model.onnx");
  if (file === undefined) return leaveOut("X: there is no file of MiniLM (--text-model)");
  const tokenizer = join(folder, "tokenizer.json");
  writeFileSync(tokenizer, JSON.stringify(wholeWordTokenizer(WORDS)));
  const section = { loader: "TextEmbeddingModelLoader", model_path: [file, tokenizer], pooling: "mean" };
  await measureTask("X", "texts", peers, { section, plain: { file, tokenizer } });
}

async function measureTask(row: RowName, task: Task, peers: readonly Peer[], served: Served): Promise<void> {
  const up = await startAll(task, peers, served, contentOf(picture));
  try {
    await measureLoad(row, up, contentOf(picture), CONNECTIONS);
  } finally {
    await stopAll(up);
  }
}

// What is served and sent

interface Served {
  section: Record<string, unknown>;
  plain: object;
  /** Lowest score of a finding. */
  threshold?: number;
}

function ofPictures({ section, plain }: PictureModel): Served {
  return { section, plain, threshold: plain.threshold };
}

function echoModel(): Served {
  const file = fileURLToPath(new URL("../echo.ts", import.meta.url));
  return { section: { loader: "EchoModelLoader", model_loader_file: file }, plain: {} };
}

function rowsModel(): Served {
  const file = join(folder, "peer-perceptron.onnx");
  writeFileSync(file, encodeModel(perceptron(ROW_LENGTH, 1024, 10)));
  return { section: { loader: "OnnxTensorModelLoader", model_path: [file] }, plain: { file } };
}

function contentOf(file: string): Content {
  return {
    picture: readFileSync(file),
    row: Array.from({ length: ROW_LENGTH }, (_, index) => Math.fround(Math.sin(index))),
    text: WORDS.join(" "),
  };
}

// Servers

/** Starts infermill and those peers that do the task, one after the other; each must answer as infermill does. */
async function startAll(
  task: Task,
  peers: readonly Peer[],
  served: Served,
  content: Content,
  starts = 1,
): Promise<Up[]> {
  const able: { peer: Peer; ask: Ask; python: string }[] = [];
  for (const peer of [INFERMILL, ...peers]) {
    const ask = peer.asks[task]!;
    try {
      able.push({ peer, ask, python: await pythonFor(peer) });
    } catch (error) {
      leaveOut(`${peer.label} (${task}): ${(error as Error).message}`);
    }
  }
  const up: Up[] = [];
  let right: string | undefined;
  for (const { peer, ask, python } of able) {
    takeTurn(undefined, up);
    const check = (text: string) => checkAnswer(task, served, peer.label, text, (right ??= text));
    const startSeconds: number[] = [];
    try {
      for (let left = Math.min(starts, ROUNDS); left > 0; left--) {
        const place = await makePlace(task, peer, served, python);
        const startedAt = performance.now();
        const running = await startUntilRight(peer, ask, place, content, check);
        startSeconds.push((performance.now() - startedAt) / 1000);
        if (left === 1) up.push({ peer, ask, startSeconds, ...running });
        else await stopProcesses(running.children);
      }
      say(`${peer.label} is up after ${startSeconds.at(-1)!.toFixed(1)} s`);
    } catch (error) {
      if (peer === INFERMILL) throw error;
      leaveOut(`${peer.label} (${task}): ${(error as Error).message}`);
    }
  }
  resume(up.flatMap(pidsOf));
  return up;
}

/** The interpreter of a peer's environment, whose versions go into the report; "" for one that needs none. */
async function pythonFor({ environment, accepts }: Pick<Peer, "environment" | "accepts">): Promise<string> {
  if (environment === undefined) return "";
  const requirements = join(HERE, `${environment}.txt`);
  const opened = await openEnvironment(requirements, { existing: options.venv, ...(accepts && { accepts }) });
  report.versions[environment] = opened.packages;
  return opened.python;
}

let places = 0;
async function makePlace(task: Task, peer: Peer, served: Served, python: string): Promise<Place> {
  const own = join(folder, `${peer.name}-${places++}`);
  mkdirSync(own);
  return {
    task,
    ports: await freePorts(),
    folder: own,
    redisSocket,
    section: served.section,
    plain: JSON.stringify(served.plain),
    python,
    decoder: peer.decoder ?? "pillow",
  };
}

// Below those that the system gives to outgoing connections, of which a load has many.
let nextPort = 20_000;

async function freePorts(): Promise<[number, number, number]> {
  const ports: number[] = [];
  for (; ports.length < 3; nextPort++) if (await isFree(nextPort)) ports.push(nextPort);
  return ports as [number, number, number];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** Starts a server and asks it until it answers; a wrong answer is an error. */
async function startUntilRight(
  peer: Peer,
  ask: Ask,
  place: Place,
  content: Content,
  check: (text: string) => void,
): Promise<{ url: string; children: ChildProcess[] }> {
  const running = await peer.start(place);
  const { bytes, headers } = ask.body(content);
  let last = "";
  try {
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < deadline && running.children.every(({ exitCode }) => exitCode === null)) {
      const answer = await send("POST", running.url + ask.path, bytes, headers).catch(() => undefined);
      if (answer?.status === 200) {
        check(answer.text);
        return running;
      }
      last = answer ? `${answer.status} ${answer.text.slice(0, 200)}` : last;
      await sleep(50);
    }
    throw new Error(`did not start: ${last || lastLineOf(join(place.folder, "log.txt"))}`);
  } catch (error) {
    await stopProcesses(running.children);
    throw error;
  }
}

function lastLineOf(file: string): string {
  return existsSync(file) ? readFileSync(file, "utf8").trim().split("\n").at(-1)! : "";
}

function checkAnswer(task: Task, served: Served, who: string, text: string, right: string): void {
  if (task === "echo") {
    if (!text.includes('"42"')) throw new Error(`${who} answers ${text}`);
  } else if (task === "rows" || task === "texts") {
    checkNumbers(who, numbersOf(text), numbersOf(right));
  } else {
    checkFindings(who, findingsOf(text), findingsOf(right), served.threshold!);
  }
}

/** Those that answer another picture as infermill does. */
async function answeringAlike(up: readonly Up[], content: Content): Promise<Up[]> {
  const alike: Up[] = [];
  let right: string | undefined;
  for (const each of up) {
    const { peer, ask, url } = each;
    const { bytes, headers } = ask.body(content);
    try {
      const { status, text } = await send("POST", url + ask.path, bytes, headers);
      if (status !== 200) throw new Error(`answers ${status}: ${text.slice(0, 200)}`);
      checkAnswer("classifier", ofPictures(model), peer.label, text, (right ??= text));
      alike.push(each);
    } catch (error) {
      if (peer === INFERMILL) throw error;
      leaveOut(`P: ${peer.label}: ${(error as Error).message}`);
    }
  }
  return alike;
}

async function stopAll(up: readonly Up[]): Promise<void> {
  resume(up.flatMap(pidsOf));
  await stopProcesses(up.flatMap(({ children }) => children));
}

const pidsOf = ({ children }: Up): number[] => children.flatMap(({ pid }) => pid ?? []);

/** With the Redis that it needs; infermill starts its own. */
const processesOf = (up: Up): number[] => [...pidsOf(up), ...(up.peer.usesRedis ? [redisPid] : [])];

/** Stops those that poll while they have nothing to do, but the one whose turn it is. */
function takeTurn(whose: Up | undefined, up: readonly Up[]): void {
  for (const each of up) if (each.peer.polls && each !== whose) pause(pidsOf(each));
  if (whose) resume(pidsOf(whose));
}

// Rows

/** Requests on so many connections. */
async function measureLoad(
  row: RowName,
  up: readonly Up[],
  content: Content,
  connections: number,
): Promise<void> {
  const bodies = new Map<string, Body & { file: string }>();
  for (const { peer, ask } of up) {
    const file = join(folder, `body-${peer.name}`);
    const body = ask.body(content);
    writeFileSync(file, body.bytes);
    bodies.set(peer.name, { ...body, file });
  }
  const loaded = (each: Up, through: number, seconds: number) => {
    const { file, headers } = bodies.get(each.peer.name)!;
    const what = { url: each.url + each.ask.path, file, headers, succeeded: "", seconds };
    return undisturbed(each, () => load({ ...what, connections: through }));
  };
  const measure = (each: Up) => loaded(each, connections, SECONDS * (LONGER[row] ?? 1));
  await measureRounds(row, up, measure, (each) => {
    if (warm.has(each.url)) return measure(each);
    warm.add(each.url);
    return loaded(each, CONNECTIONS, WARM_UP_SECONDS);
  });
}

/** Rounds in which each has its turn, after one that warms up. One that fails leaves the row. */
async function measureRounds(
  row: RowName,
  all: readonly Up[],
  measure: (each: Up) => Promise<Record<string, number>>,
  warmUp = measure,
): Promise<void> {
  let up = [...all];
  const rounds: Round[] = [];
  for (let index = options.quick ? 1 : 0; index <= ROUNDS; index++) {
    const round: Round = new Map();
    for (const each of up) {
      takeTurn(each, all);
      await quiet();
      try {
        round.set(each.peer.name, await (index === 0 ? warmUp : measure)(each));
      } catch (error) {
        if (each.peer === INFERMILL) throw error;
        leaveOut(`${row}: ${each.peer.label}: ${(error as Error).message}`);
      }
    }
    up = up.filter(({ peer }) => round.has(peer.name));
    say(
      `${row}, ${index === 0 ? "warm-up" : `round ${index}`}: ${[...round].map(([name, figures]) => `${name} ${figures[HEADLINES[row] ?? "rate"]!.toFixed(1)}`).join(", ")}`,
    );
    if (index > 0) rounds.push(round);
  }
  resume(all.flatMap(pidsOf));
  addRow(row, ROW_TITLES[row], up, rounds);
}

function leaveOut(reason: string): void {
  say(`left out: ${reason}`);
  report.leftOut.push(reason);
}

/** Measures one load; again, once, where others took much of the machine meanwhile. */
async function undisturbed(each: Up, measure: () => Promise<LoadFigures>): Promise<Record<string, number>> {
  const pids = processesOf(each);
  for (let attempt = 1; ; attempt++) {
    const [machineBefore, ownBefore, startedAt] = [machineSeconds(), cpuSeconds(pids), performance.now()];
    const { rate, p50, p95, p99, errors, requests, clientCpuMs } = await measure();
    const seconds = (performance.now() - startedAt) / 1000;
    const own = cpuSeconds(pids) - ownBefore;
    const client = (clientCpuMs * requests) / 1000;
    const foreign = (machineSeconds() - machineBefore - own - client) / (seconds * CORES);
    await idle(pids);
    if (errors > 0) throw new Error(`${errors} of ${requests} requests failed`);
    if (requests === 0) throw new Error("no request was answered in time");
    if (options.quick || attempt === 2 || foreign < MAX_FOREIGN_SHARE)
      return { rate, p50, p95, p99, cpuMs: (1000 * own) / requests, clientCpuMs };
    say(`${each.peer.label}: others took ${(100 * foreign).toFixed(0)} % of the machine, again`);
    await quiet();
  }
}

/** Waits, for a while, until a server has worked off what the client left behind: a queue goes on with it. */
async function idle(pids: readonly number[]): Promise<void> {
  for (let attempt = 0; attempt < 40; attempt++) {
    const before = cpuSeconds(pids);
    await sleep(250);
    if (cpuSeconds(pids) - before < 0.25 * IDLE_SHARE) return;
  }
}

/** Waits, for a while, until others leave the machine alone. */
async function quiet(): Promise<void> {
  if (options.quick) return;
  for (let attempt = 0; attempt < 20; attempt++) {
    const before = machineSeconds();
    await sleep(250);
    if (machineSeconds() - before < 0.05 * CORES) return;
  }
}

/** Uploads that are answered with an id, then all results. */
async function submitAndCollect({ peer, url }: Up): Promise<Record<string, number>> {
  const { submit, result } = peer.collect!;
  const body = readFileSync(picture);
  const ids: string[] = [];
  const clients = (work: () => Promise<void>) => Promise.all(Array.from({ length: CONNECTIONS }, work));
  let left = SUBMITTED;
  const startedAt = performance.now();
  await clients(async () => {
    while (left-- > 0) {
      const { status, text } = await send("POST", url + submit, body, { "Content-Type": "image/jpeg" });
      if (status !== 202) throw new Error(`${peer.label} answers ${status}: ${text.slice(0, 300)}`);
      ids.push(String((JSON.parse(text) as { id: unknown }).id));
    }
  });
  const accepted = (performance.now() - startedAt) / 1000;
  await clients(async () => {
    for (let id = ids.shift(); id !== undefined; id = ids.shift()) {
      const { status, text } = await send("GET", url + result(id));
      if (status !== 200 || !text.includes('"Fs"'))
        throw new Error(`${peer.label} answers ${status}: ${text.slice(0, 300)}`);
    }
  });
  const seconds = (performance.now() - startedAt) / 1000;
  return { rate: SUBMITTED / seconds, accepted: SUBMITTED / accepted };
}

function reportFootprint(title: string, up: readonly Up[]): void {
  const figures = (each: Up) => ({
    memory: memoryBytes(processesOf(each)) / 2 ** 20,
    start: median(each.startSeconds),
  });
  const round: Round = new Map(up.map((each) => [each.peer.name, figures(each)]));
  addRow("G", title, up, [round]);
}

/** A folder through whole commands, from the call to the last line. */
async function measureFolder(peers: typeof FOLDER_PEERS): Promise<void> {
  const photos = [picture, findSamplePhoto("nagasaki-boats")!];
  for (const [index, file] of photos.entries())
    linkPictures(`peers/${index}`, Math.ceil(FILES / photos.length), readFileSync(file));
  const pictures = join(folder, "photos", "peers");
  const config = await configFor("peer-bulk", "files", undefined, model.section);
  const commands = new Map<string, { label: string; command: string[]; env: Record<string, string> }>();
  commands.set("infermill", {
    label: "infermill bulk",
    command: [process.execPath, MAIN, "bulk", pictures, "--model", "Bench", "--config", config.file, "--out"],
    env: { REDIS_URL: "", NO_COLOR: "1" },
  });
  for (const { name, label, environment, script, decoder } of peers) {
    try {
      const python = await pythonFor({ environment });
      const place = {
        task: "classifier",
        plain: JSON.stringify(model.plain),
        redisSocket,
        folder,
        decoder,
      } as const;
      commands.set(name, {
        label,
        command: [python, join(HERE, script), pictures],
        env: environmentOf({ ...place, ports: [0, 0, 0] }),
      });
    } catch (error) {
      leaveOut(`C: ${label}: ${(error as Error).message}`);
    }
  }
  const rounds: Round[] = [];
  for (let index = 0; index < ROUNDS; index++) {
    const round: Round = new Map();
    for (const [name, { label, command, env }] of commands) {
      await quiet();
      const results = join(folder, `results-${name}-${index}.ndjson`);
      try {
        round.set(name, await runOverFolder([...command, results], env, results));
      } catch (error) {
        if (name === "infermill") throw error;
        leaveOut(`C: ${label}: ${(error as Error).message}`);
        commands.delete(name);
      }
    }
    say(`C ${index + 1}: ${[...round].map(([name, { rate }]) => `${name} ${rate!.toFixed(1)}`).join(", ")}`);
    rounds.push(round);
  }
  const up = [...commands].map(([name, { label }]) => ({ peer: { name, label } }));
  addRow("C", ROW_TITLES.C, up, rounds);
}

async function runOverFolder(
  [command, ...args]: string[],
  env: Record<string, string>,
  results: string,
): Promise<Record<string, number>> {
  const startedAt = performance.now();
  const child = spawn(command!, args, {
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let errors = "";
  let first: number | undefined;
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const timer = setInterval(() => {
    if (first === undefined && existsSync(results) && readFileSync(results).length > 0)
      first = (performance.now() - startedAt) / 1000;
  }, 50);
  const code = await new Promise((resolve) => child.once("close", resolve));
  clearInterval(timer);
  const seconds = (performance.now() - startedAt) / 1000;
  const lines = existsSync(results) ? readFileSync(results, "utf8").trim().split("\n") : [];
  const found = lines.filter((line) => line.includes('"Fs"')).length;
  if (code !== 0 || found < FILES)
    throw new Error(`exit code ${String(code)}, ${found} results: ${errors.trim().split("\n").at(-1)}`);
  return {
    rate: lines.length / seconds,
    seconds,
    first: first ?? seconds,
    afterFirst: lines.length / (seconds - (first ?? 0)),
  };
}

// Figures

function addRow(
  name: RowName,
  title: string,
  up: readonly { peer: { name: string; label: string } }[],
  rounds: readonly Round[],
): void {
  const entries = up.map(({ peer }) => {
    const keys = Object.keys(rounds[0]!.get(peer.name)!);
    const ratiosOf = (key: string) =>
      rounds.map((round) => round.get(peer.name)![key]! / round.get("infermill")![key]!);
    const each = (figure: (key: string) => number) =>
      Object.fromEntries(keys.map((key) => [key, figure(key)]));
    const headline = ratiosOf(HEADLINES[name] ?? "rate");
    return {
      name: peer.name,
      label: peer.label,
      figures: each((key) => median(rounds.map((round) => round.get(peer.name)![key]!))),
      ratios: each((key) => median(ratiosOf(key))),
      range: [Math.min(...headline), Math.max(...headline)] as [number, number],
    };
  });
  report.rows.push({ name, title, entries });
}
