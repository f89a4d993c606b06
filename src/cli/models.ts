/** `infermill models`: what the configuration serves. */
import { loadConfig } from "../config/load.ts";
import { DEFAULT_MAX_BATCH_SIZE } from "../config/schema.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { printWarning } from "./log.ts";

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
  printTable([["MODEL", "LOADER", "DEVICE", "BATCH", "FILES"], ...rows]);
}

function printTable(rows: string[][]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const row of rows)
    console.log(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd(),
    );
}
