/** What of a model's configuration is kept with a run: enough to say later what it was run with, and nothing secret. */
import type { Config } from "../config/schema.ts";
import type { UsedModel } from "../core/bulkSummary.ts";
import { version } from "../version.ts";

/** How long predictions wait and are kept says nothing of what comes out. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  "attempts",
  "max_queue_delay_ms",
  "max_queue_length",
  "result_ttl_seconds",
  "timeout_ms",
]);
/** Lists that say what is looked for, and how large. */
const LISTS = ["classes", "input_image_size"] as const;

export function usedModel(config: Config, model: string): UsedModel {
  const section = config.models[model]!;
  const settings: UsedModel["settings"] = {};
  for (const [key, value] of Object.entries(section))
    if ((typeof value === "number" || typeof value === "boolean") && !LEFT_OUT.has(key))
      settings[key] = value;
  for (const key of LISTS) {
    const list = section[key];
    if (list && list.length > 0) settings[key] = [...list];
  }
  return {
    version,
    loader: section.loader,
    model_path: section.model_path.map(withoutSecrets),
    device: [section.device].flat(),
    settings,
  };
}

/** An address may bring a name, a password or a signed query. */
function withoutSecrets(path: string): string {
  if (!/^https?:/i.test(path) || !URL.canParse(path)) return path;
  const url = new URL(path);
  url.username = "";
  url.password = "";
  url.search = "";
  return url.href;
}
