/** `infermill models`: what the configuration serves. */
import { loadConfig } from "../config/load.ts";
import { DEFAULT_MAX_BATCH_SIZE } from "../config/schema.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { printWarning } from "./log.ts";
import { formatTable } from "./table.ts";

export async function listModels(options: { config?: string; json?: boolean }): Promise<void> {
  const config = await loadConfig({ file: options.config, check: checkLoaders, onWarning: printWarning });
  if (options.json) {
    console.log(JSON.stringify(config.models, null, 2));
    return;
  }
  const rows = Object.entries(config.models).map(([name, model]) => [
    name,
    model.loader,
    String(model.device),
    `${model.max_batch_size ?? DEFAULT_MAX_BATCH_SIZE}`,
    model.model_path.join(", ") || "-",
  ]);
  console.log(formatTable([["MODEL", "LOADER", "DEVICE", "BATCH", "FILES"], ...rows]));
}
