#!/usr/bin/env node
/** The command `infermill`. */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { EXIT_USAGE, exitWith } from "./exit.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const CONFIG_OPTION = [
  "-c, --config <file>",
  "configuration (default: $INFERMILL_CONFIG or config/infermill.json)",
] as const;

const program = new Command("infermill")
  .description(
    "Job-queue based batch inference: submit predictions over HTTP, run them in batches, poll the results.",
  )
  .version(version)
  .showHelpAfterError("(infermill --help shows what there is)")
  .exitOverride()
  .addHelpText(
    "after",
    `
Environment: INFERMILL_CONFIG, HOST, PORT, REDIS_URL, INFERMILL_DATA_DIR, LOG_LEVEL,
             INFERMILL_CACHE_DIR, HF_ENDPOINT, HF_TOKEN
Exit codes:  0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted`,
  );

program
  .command("start")
  .description("start everything: Redis if none is named, api, worker and coordinator")
  .option(...CONFIG_OPTION)
  .action(async (options: { config?: string }) => (await import("./start.ts")).start(options));

program
  .command("api")
  .description("start the HTTP api only")
  .option(...CONFIG_OPTION)
  .action(async (options: { config?: string }) => (await import("./api.ts")).runApi(options));

program
  .command("worker")
  .description("start a worker only")
  .option(...CONFIG_OPTION)
  .option("-m, --models <names>", "models to serve, separated by commas (default: all that are configured)")
  .action(async (options: { config?: string; models?: string }) =>
    (await import("./worker.ts")).runWorker(options),
  );

program
  .command("coordinator")
  .description("start the coordinator only: it delivers webhooks")
  .option(...CONFIG_OPTION)
  .action(async (options: { config?: string }) =>
    (await import("./coordinator.ts")).runCoordinator(options),
  );

program
  .command("predict")
  .description("run one picture through a model here and now, without Redis, and print the response")
  .argument("<picture>", "JPEG, PNG or WebP file")
  .requiredOption("-m, --model <name>", "model of the configuration")
  .option(...CONFIG_OPTION)
  .option("-r, --request <json>", "further keys of the request dictionary, such as '{\"C_threshold\":0.4}'")
  .action(async (picture: string, options: { config?: string; model: string; request?: string }) =>
    (await import("./predict.ts")).predict(picture, options),
  );

const models = program
  .command("models")
  .description("list the models of the configuration")
  .option(...CONFIG_OPTION)
  .option("--json", "print JSON")
  // Else `models` would take the --config of `models pull`.
  .enablePositionalOptions()
  .action(async (options: { config?: string; json?: boolean }) =>
    (await import("./models.ts")).listModels(options),
  );

models
  .command("pull")
  .description("fetch or convert now what the configuration's models need, so that later starts work offline")
  .argument("[names...]", "models of the configuration (default: all)")
  .option(...CONFIG_OPTION)
  .action(async (names: string[], _options: unknown, command: Command) =>
    (await import("./modelsPull.ts")).pullModels(names, command.optsWithGlobals<{ config?: string }>()),
  );

try {
  await program.parseAsync();
} catch (error) {
  // commander has printed its own message already.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  else exitWith(error);
}
