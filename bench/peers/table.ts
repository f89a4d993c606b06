/** Prints what the peers' run measured: every row, or with `--markdown` the table of the README. */
import { LOAD_CLIENT } from "../load.ts";
import { model, options, ROUNDS, SECONDS } from "../setting.ts";
import { HEADLINES, type Entry, type PeerReport, type PeerRow, type RowName } from "./measure.ts";
import { INFERMILL, PEERS } from "./peers.ts";

/** Ratios nearer to 1 are told as level. */
const LEVEL = 0.03;

export function printPeers(report: PeerReport, machine: string): void {
  if (options.json) {
    const setting = { machine, client: LOAD_CLIENT, model: model.name, rounds: ROUNDS, seconds: SECONDS };
    console.log(JSON.stringify({ ...setting, ...report }, null, 2));
    return;
  }
  const parts = options.markdown ? [] : report.rows.map(detailsOf);
  parts.push(serversOf(report), othersOf(report), fasterOf(report), settingOf(report, machine));
  console.log(parts.filter((part) => part !== "").join("\n\n"));
}

/** Every figure of one row. */
function detailsOf({ name, title, entries }: PeerRow): string {
  const keys = Object.keys(entries[0]!.figures);
  const lines = entries.map(({ label, figures, ratios, range }) => {
    const [low, high] = range.map((ratio) => ratio.toFixed(2));
    const ratio = `${ratios[HEADLINES[name] ?? "rate"]!.toFixed(2)} (${low}–${high})`;
    return [label, ratio, ...keys.map((key) => round(figures[key]!))];
  });
  return `### ${name}: ${title}\n\n${tableOf(["server", "÷ infermill (range)", ...keys], lines)}`;
}

/** Servers as rows: infermill's own figures, and what of them the others reach. */
function serversOf({ rows }: PeerReport): string {
  const row = (name: RowName) => rows.find((each) => each.name === name);
  const columns: {
    title: string;
    row: PeerRow | undefined;
    cell: (entry: Entry, isOwn: boolean) => string;
  }[] = [
    { title: "201 KB JPEG, uploads/s", row: row("A"), cell: ratioCell },
    { title: "12-megapixel photo, uploads/s", row: row("P"), cell: ratioCell },
    { title: "YOLOv8n, uploads/s", row: row("F"), cell: ratioCell },
    { title: "submit, collect later, /s", row: row("B"), cell: ratioCell },
    { title: "JSON, no model, /s", row: row("E"), cell: ratioCell },
    { title: "256 floats, /s", row: row("T"), cell: ratioCell },
    { title: "a text, /s", row: row("X"), cell: ratioCell },
    { title: "alone: p50 / p95 / p99 ms", row: row("D"), cell: latencyCell },
    { title: "memory, MiB", row: row("G"), cell: ({ figures }) => figures["memory"]!.toFixed(0) },
    {
      title: "memory with YOLOv8n, MiB",
      row: rows.findLast(({ name }) => name === "G" && row("F") !== undefined),
      cell: ({ figures }) => figures["memory"]!.toFixed(0),
    },
    { title: "start, s", row: row("G"), cell: ({ figures }) => figures["start"]!.toFixed(1) },
  ];
  const shown = columns.filter((column) => column.row);
  if (shown.length === 0) return "";
  const found = [INFERMILL, ...PEERS].filter(({ name }) =>
    shown.some((column) => column.row!.entries.some((entry) => entry.name === name)),
  );
  const lines = found.map((peer) => [
    peer === INFERMILL ? `**${peer.label}**` : peer.label,
    peer.isDurable ? "yes" : "no",
    ...shown.map((column) => {
      const entry = column.row!.entries.find(({ name }) => name === peer.name);
      return entry ? column.cell(entry, peer === INFERMILL) : "";
    }),
  ]);
  const how =
    "infermill's own figures, and what the others reach of them in the same run: 0.80× is a fifth less, **bold** is faster than infermill. Latencies, memory and starts are told as they are.";
  return `${how}\n\n${tableOf(["", "keeps a queue", ...shown.map(({ title }) => title)], lines)}`;
}

function ratioCell({ figures, ratios }: Entry, isOwn: boolean): string {
  if (isOwn) return round(figures["rate"]!);
  const ratio = ratios["rate"]!;
  return ratio > 1 + LEVEL ? `**${ratio.toFixed(2)}×**` : `${ratio.toFixed(2)}×`;
}

function latencyCell({ figures }: Entry): string {
  return ["p50", "p95", "p99"].map((key) => figures[key]!.toFixed(1)).join(" / ");
}

/** What isn't a server's: a folder, and pictures by reference. */
function othersOf({ rows }: PeerReport): string {
  const parts: string[] = [];
  const folder = rows.find(({ name }) => name === "C");
  if (folder) {
    const lines = folder.entries.map((entry, index) => [
      entry.label,
      ratioCell(entry, index === 0),
      entry.figures["first"]!.toFixed(1),
    ]);
    parts.push(tableOf([folder.title, "files/s", "first result after, s"], lines));
  }
  const reference = rows.flatMap(({ entries }) => entries).find(({ name }) => name === "infermill-reference");
  if (reference) parts.push(`A file by reference, alone: p50 / p95 / p99 ${latencyCell(reference)} ms.`);
  return parts.join("\n\n");
}

/** Where others are faster, and why. */
function fasterOf({ rows }: PeerReport): string {
  const shorter: Partial<Record<RowName, string>> = {
    A: "201 KB uploads",
    P: "12-megapixel uploads",
    F: "the detector",
    B: "submit and collect",
    E: "JSON without a model",
    T: "floats",
    X: "texts",
    D: "lone uploads (p50)",
  };
  const faster = PEERS.flatMap((peer) => {
    const found = rows.flatMap((row) => {
      const entry = row.entries.find(({ name }) => name === peer.name);
      const what = shorter[row.name];
      if (!entry || what === undefined) return [];
      const speed = row.name === "D" ? 1 / entry.ratios["p50"]! : entry.ratios["rate"]!;
      return speed > 1 + LEVEL ? [`${what} ${speed.toFixed(2)}×`] : [];
    });
    return found.length === 0 ? [] : [{ peer, found }];
  });
  if (faster.length === 0) return "";
  const lines = faster.map(({ peer, found }) =>
    `- **${peer.label}**: ${found.join(", ")}. ${peer.why}`.trim(),
  );
  const why = faster.some(({ peer }) => !peer.isDurable)
    ? " A server that keeps no queue has no Redis to write to and to read from, and what a process of it had accepted is lost with that process."
    : "";
  return `Faster than infermill here.${why}\n\n${lines.join("\n")}`;
}

function settingOf({ rows, leftOut, versions }: PeerReport, machine: string): string {
  const client = rows.find(({ name }) => name === "A")?.entries.map(({ figures }) => figures["clientCpuMs"]!);
  const cost =
    client &&
    `, which takes ${Math.min(...client).toFixed(2)}–${Math.max(...client).toFixed(2)} ms of CPU an upload`;
  const lines = [
    `${machine}; ${model.name}; medians of ${ROUNDS} interleaved rounds of ${SECONDS} s. The client is ${LOAD_CLIENT}${cost ?? ""}, on the same cores. A server's memory is that of all its processes, Redis with them.`,
  ];
  const packages = new Set(
    Object.values(versions).flatMap((each) =>
      Object.entries(each).map(([name, version]) => `${name} ${version}`),
    ),
  );
  lines.push(`Versions: ${[...packages].toSorted().join(", ")}.`);
  if (leftOut.length > 0) lines.push(`Left out:\n\n${leftOut.map((reason) => `- ${reason}`).join("\n")}`);
  return lines.join("\n\n");
}

function tableOf(head: string[], lines: string[][]): string {
  const line = (cells: string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), `|${"---|".repeat(head.length)}`, ...lines.map(line)].join("\n");
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
