/** What `infermill start` prints once all is ready: where, what, from which Redis, and a line to try it with. */
import { relative } from "node:path";
import pc from "picocolors";
import { findSamplePhoto } from "../models/samplePhotos.ts";
import type { RedisServer } from "../redis/provideRedis.ts";

interface ServedModel {
  name: string;
  loader: string;
  picture: "required" | "optional" | "none" | null;
  engines: { device: string }[];
}

export async function printBanner(url: string, redis: RedisServer): Promise<void> {
  const answer = await fetch(new URL("/v1/models", url));
  const { models } = (await answer.json()) as { models: ServedModel[] };
  const lines = [
    "",
    `${pc.bold("infermill")} is ready at ${pc.cyan(url)}`,
    "",
    `  api        ${url}/v1/models`,
    `  docs       ${url}/docs`,
    `  dashboard  ${url}/dashboard`,
    `  redis      ${redis.source}`,
    ...models.map(describeModel),
    "",
    "Try it:",
    "",
    `  ${tryLine(url, models[0]!)}`,
    "",
    "Ctrl-C stops everything; predictions are kept.",
    "",
  ];
  console.log(lines.join("\n"));
}

function describeModel({ name, loader, engines }: ServedModel): string {
  const devices = new Map<string, number>();
  for (const { device } of engines) devices.set(device, (devices.get(device) ?? 0) + 1);
  const engineWords = [...devices].map(
    ([device, count]) => `${count} ${count === 1 ? "engine" : "engines"} on ${device}`,
  );
  return `  model      ${pc.bold(name)} (${loader}), ${engineWords.join(", ")}`;
}

function tryLine(url: string, { name, picture }: ServedModel): string {
  const address = `${url}/v1/models/${encodeURIComponent(name)}/predictions`;
  if (picture !== "required")
    return `curl -s -H 'Prefer: wait=30' -H 'Content-Type: application/json' -d '{}' ${address}`;
  const photo = findSamplePhoto("march-pastoral");
  const path = photo === undefined ? "picture.jpg" : shorter(relative(process.cwd(), photo), photo);
  return `curl -s -H 'Prefer: wait=30' -H 'Content-Type: image/jpeg' --data-binary '@${path}' ${address}`;
}

function shorter(a: string, b: string): string {
  return a.length <= b.length ? a : b;
}
