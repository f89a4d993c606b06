/**
 * `npm run bench`: what infermill costs over the bare model and the bare queue; with `--peers`, infermill beside what one
 * would use in its place. CONTRIBUTING.md has the options.
 */
import { readFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { LOAD_CLIENT } from "./load.ts";
import { measurePeers } from "./peers/measure.ts";
import { printPeers } from "./peers/table.ts";
import { measureRows, type Row } from "./rows.ts";
import {
  closeSetting,
  CORES,
  model,
  options,
  picture,
  positionals,
  redis,
  ROUNDS,
  SECONDS,
} from "./setting.ts";

const machine = `${cpus()[0]!.model}, ${CORES} cores, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Node ${process.version}, Redis ${redis.version}`;
const wanted = options.rows?.split(",");

try {
  if (options.peers) {
    const names = positionals.flatMap((each) => each.split(","));
    printPeers(await measurePeers(names, wanted), machine);
  } else {
    printRows(await measureRows(wanted));
  }
} finally {
  await closeSetting();
}
process.exit();

function printRows({ rows, rawLoops }: { rows: Row[]; rawLoops: string[] }): void {
  const client = LOAD_CLIENT;
  if (options.json) {
    const report = { machine, client, model: model.name, rounds: ROUNDS, seconds: SECONDS, rawLoops, rows };
    console.log(JSON.stringify(report, null, 2));
    return;
  }
  const kilobytes = (readFileSync(picture).length / 1000).toFixed(0);
  console.log(
    `\n${machine}; the load client is ${client}\nmodel ${model.name}, picture ${kilobytes} KB JPEG; medians of ${ROUNDS} interleaved rounds\n${rawLoops.join("\n")}\n`,
  );
  console.log("| figure | measured | aim | |\n|---|---|---|---|");
  for (const { figure, value, aim = "", met, detail } of rows) {
    const verdict = met === undefined ? "" : met ? "met" : "MISSED";
    console.log(`| ${figure} | **${value.toFixed(2)}** (${detail}) | ${aim} | ${verdict} |`);
  }
}
