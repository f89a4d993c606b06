/** What `infermill start` prints once all is ready: where, what, from which Redis, and a line to try it with. */
import { existsSync } from "node:fs";
import { relative, resolve } from "node:path";
import { isatty } from "node:tty";
import picocolors from "picocolors";
import { findSamplePhoto } from "../models/samplePhotos.ts";
import type { RedisServer } from "../redis/redisServer.ts";

// picocolors takes a CI for a terminal.
const colours = picocolors.createColors(picocolors.isColorSupported && isatty(1));

interface ServedModel {
  name: string;
  loader: string;
  picture: "required" | "optional" | "none" | null;
  ready: boolean;
  engines: { device: string; error: string | null }[];
}

/**
 * @param urls of the HTTP api, then of what else it listens on
 * @param options apiKey: one of the `api_keys`, where there are any; hasConsole: whether browsers get a page
 */
export async function printBanner(
  [url, ...others]: readonly [string, ...string[]],
  redis: RedisServer,
  { apiKey, hasConsole }: { apiKey?: string | undefined; hasConsole: boolean },
): Promise<void> {
  const headers = { ...(apiKey !== undefined && { Authorization: `Bearer ${apiKey}` }) };
  const answer = await fetch(new URL("/v1/models", url), { headers });
  const { models } = (await answer.json()) as { models: ServedModel[] };
  const lines = [
    "",
    `${colours.bold("infermill")} is ready at ${colours.cyan(url)}`,
    "",
    ...(hasConsole ? [`  console    ${url}/  (drop a picture there, in a browser)`] : []),
    `  api        ${url}/v1/models`,
    `  docs       ${url}/docs`,
    `  dashboard  ${url}/dashboard`,
    ...others.map((other) => `  ${other.split(":")[0]!.padEnd(9)}  ${other}`),
    `  redis      ${redis.source}`,
    ...models.map(describeModel),
    "",
    "Try it:",
    "",
    `  ${tryLine(url, models.find(({ ready }) => ready) ?? models[0]!, apiKey !== undefined)}`,
    "",
    "Ctrl-C stops everything; predictions are kept.",
    "",
  ];
  console.log(lines.join("\n"));
}

function describeModel({ name, loader, ready, engines }: ServedModel): string {
  const failure = engines.find(({ error }) => error !== null)?.error;
  if (!ready && failure) {
    return (
      `  ${colours.red("model")}      ${colours.bold(name)} (${loader}) ${colours.red("is not served")}: ${failure}\n` +
      `             it is loaded again when its file changes, or by POST /v1/models/${name}/load`
    );
  }
  const devices = new Map<string, number>();
  for (const { device } of engines) devices.set(device, (devices.get(device) ?? 0) + 1);
  const engineWords = [...devices].map(
    ([device, count]) => `${count} ${count === 1 ? "engine" : "engines"} on ${device}`,
  );
  return `  model      ${colours.bold(name)} (${loader}), ${engineWords.join(", ")}`;
}

/** With the sample request of `infermill init`, where this folder has one. */
function tryLine(url: string, { name, picture }: ServedModel, needsKey: boolean): string {
  const curl = `curl -s${needsKey ? ' -H "Authorization: Bearer $INFERMILL_API_KEY"' : ""} -H 'Prefer: wait=30'`;
  const address = `${url}/v1/models/${encodeURIComponent(name)}/predictions`;
  if (picture !== "required") {
    const body = existsSync("request.json") ? "@request.json" : "'{}'";
    return `${curl} -H 'Content-Type: application/json' -d ${body} ${address}`;
  }
  if (existsSync("sample.png"))
    return `${curl} -H 'Content-Type: image/png' --data-binary @sample.png ${address}`;
  const photo = existsSync("sample.jpg") ? resolve("sample.jpg") : findSamplePhoto("march-pastoral");
  const path = photo === undefined ? "picture.jpg" : shorter(relative(process.cwd(), photo), photo);
  return `${curl} -H 'Content-Type: image/jpeg' --data-binary '@${path}' ${address}`;
}

function shorter(a: string, b: string): string {
  return a.length <= b.length ? a : b;
}
