#!/usr/bin/env node
/** The command `infermill`. */
import { Command, CommanderError } from "commander";
import { PICTURE_FORMAT_NAMES } from "../core/pictureFormats.ts";
import type { BulkOptions } from "./bulk.ts";
import type { ListOptions } from "./webhooks.ts";
import { version } from "../version.ts";
import { EXIT_USAGE, exitWith } from "./exit.ts";
import type { InitOptions } from "./init.ts";
import type { StartOptions } from "./start.ts";
import type { StatusOptions } from "./status.ts";
import type { TestOptions } from "./test.ts";

/** Lines that can be copied, below a command's help. */
function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  ${line}`).join("\n")}`;
}

const CONFIG_OPTION = [
  "-c, --config <file>",
  "configuration (default: $INFERMILL_CONFIG or config/infermill.json)",
] as const;
const STRICT_OPTION = [
  "--strict",
  "end with an error where one model can't be loaded, or Redis may lose predictions (default: warn)",
] as const;
const STRICT_REDIS_OPTION = [
  "--strict",
  "end with an error where Redis may lose predictions: it evicts keys, or keeps no append-only file (default: warn)",
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
             INFERMILL_API_KEYS, INFERMILL_API_KEY, INFERMILL_WEBHOOK_SECRET,
             INFERMILL_CACHE_DIR, HF_ENDPOINT, HF_TOKEN
Exit codes:  0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted`,
  );

program
  .command("init")
  .description("make a folder that `infermill start` serves: configuration, loader, sample request, README")
  .argument("[folder]", "where it goes (default: this folder)")
  .option("--python", "a loader of your own in Python (default: in TypeScript)")
  .option("-m, --model <file>", "an .onnx file, or an address as in model_path, with the loader that fits")
  .option("-y, --yes", "ask nothing")
  .addHelpText(
    "after",
    examples(
      "infermill init shop",
      "infermill init shop --python",
      "infermill init shop --model yolov8n.onnx",
    ),
  )
  .action(async (folder: string | undefined, options: InitOptions) =>
    (await import("./init.ts")).init(folder, options),
  );

program
  .command("start")
  .description("start everything: Redis if none is named, api, worker and coordinator")
  .option(...CONFIG_OPTION)
  .option(...STRICT_OPTION)
  .option("--demo", "serve the demo detector, without a configuration (needs the package @vladmandic/human)")
  .addHelpText(
    "after",
    examples("infermill start", "infermill start --config shop/infermill.json", "PORT=9000 infermill start"),
  )
  .action(async (options: StartOptions) => (await import("./start.ts")).start(options));

program
  .command("doctor")
  .description(
    "check what infermill needs: Node, native libraries, GPU, Redis, ports, disk, Python, model files",
  )
  .option(...CONFIG_OPTION)
  .option("--json", "print JSON")
  .addHelpText("after", examples("infermill doctor", "infermill doctor --config shop/infermill.json --json"))
  .action(async (options: { config?: string; json?: boolean }) =>
    (await import("./doctor.ts")).doctor(options),
  );

program
  .command("api")
  .description("start the HTTP api only")
  .option(...CONFIG_OPTION)
  .option(...STRICT_REDIS_OPTION)
  .action(async (options: { config?: string; strict?: boolean }) =>
    (await import("./api.ts")).runApi(options),
  );

program
  .command("worker")
  .description("start a worker only")
  .option(...CONFIG_OPTION)
  .option("-m, --models <names>", "models to serve, separated by commas (default: all that are configured)")
  .option(...STRICT_OPTION)
  .addHelpText(
    "after",
    examples(`infermill worker`, `REDIS_URL=redis://queue:6379 infermill worker --models Detector,Words`),
  )
  .action(async (options: { config?: string; models?: string; strict?: boolean }) =>
    (await import("./worker.ts")).runWorker(options),
  );

program
  .command("coordinator")
  .description("start the coordinator only: it delivers webhooks and works on bulk runs")
  .option(...CONFIG_OPTION)
  .option(...STRICT_REDIS_OPTION)
  .action(async (options: { config?: string; strict?: boolean }) =>
    (await import("./coordinator.ts")).runCoordinator(options),
  );

program
  .command("predict")
  .description("run one picture through a model here and now, without Redis, and print the response")
  .argument("<picture>", `picture: ${PICTURE_FORMAT_NAMES}`)
  .requiredOption("-m, --model <name>", "model of the configuration")
  .option(...CONFIG_OPTION)
  .option("-r, --request <json>", "further keys of the request dictionary, such as '{\"C_threshold\":0.4}'")
  .addHelpText(
    "after",
    examples(
      `infermill predict sample.png --model Spot`,
      `infermill predict photo.jpg --model Detector --request '{"C_threshold":0.4}'`,
    ),
  )
  .action(async (picture: string, options: { config?: string; model: string; request?: string }) =>
    (await import("./predict.ts")).predict(picture, options),
  );

program
  .command("test")
  .description("run a request through a model some times here and now, without Redis, as IMIL's test.py")
  .option("-m, --model <name>", "model of the configuration (default: its only one, or default_model)")
  .option("--confidence <number>", "C_threshold, 0 to 1", "0.5")
  .option("--iteration <count>", "how often it runs", "1")
  .option("--image <file>", `picture: ${PICTURE_FORMAT_NAMES}`)
  .option("--prompt <json>", 'text prompts, such as \'["fire","smoke"]\'')
  .option(...CONFIG_OPTION)
  .action(async (options: TestOptions) => (await import("./test.ts")).test(options));

program
  .command("bulk")
  .description("run a model over every picture of a folder, with a line of JSON for each")
  .argument(
    "[folder]",
    "folder of pictures, or s3://<bucket>/<prefix>; with --server as <root>/<path> below the server's bulk_roots",
  )
  .option("-m, --model <name>", "model of the configuration")
  .option(
    "-o, --out <file>",
    "file or s3://<bucket>/<key> where the results go, a line a picture (default: results.ndjson)",
  )
  .option(
    "--annotate <folder>",
    "also draw copies of the pictures with what was found, into this folder; with --server as <root>/<path> below the server's annotate_roots",
  )
  .option("--glob <pattern>", "which files, such as '2024/**/*.jpg' (default: whatever is a picture)")
  .option("-r, --request <json>", "further keys of the request dictionary, such as '{\"C_threshold\":0.4}'")
  .option("--priority <name>", "high, normal or low (default), against other predictions and runs")
  .option("--fail-fast", "give up with the first picture that fails")
  .option("--max-failures <number>", "give up once more pictures than this have failed")
  .option("--deadline <when>", "give up at this time, such as 2027-01-31T18:00:00Z, or after so many seconds")
  .option("--metadata <key=value...>", "what the run is known by; comes back in it and in its webhook")
  .option("--report <file>", "also write a report, an HTML page in one file that opens anywhere")
  .option(
    "--format <names>",
    "also write the results as csv, parquet, coco (of detections), or several: csv,parquet",
  )
  .option("--list-skipped", "also print what was left out of the folder, a line each: reason, path")
  .option(
    "--server <url>",
    "run it on this server (default: here, with Redis and a worker for the time of the run)",
  )
  .option("--resume <id>", "resume a run that was interrupted")
  .option(...CONFIG_OPTION)
  .addHelpText(
    "after",
    examples(
      `infermill bulk photos --model Detector --out results.ndjson --annotate drawn`,
      `infermill bulk photos/2024 --model Detector --server http://127.0.0.1:8448`,
    ),
  )
  .action(async (folder: string | undefined, options: BulkOptions) =>
    (await import("./bulk.ts")).bulk(folder, options),
  );

program
  .command("status")
  .description("show how it goes: models, engines, queues, rates, bulk runs, dead webhooks")
  .option(...CONFIG_OPTION)
  .option("--server <url>", "of this server (default: of the Redis of the configuration)")
  .option("-w, --watch", "again every two seconds, until Ctrl-C")
  .option("--json", "print JSON")
  .action(async (options: StatusOptions) => (await import("./status.ts")).showStatus(options));

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
  .addHelpText("after", examples(`infermill models pull`, `infermill models pull Detector`))
  .action(async (names: string[], _options: unknown, command: Command) =>
    (await import("./modelsPull.ts")).pullModels(names, command.optsWithGlobals<{ config?: string }>()),
  );

models
  .command("inspect")
  .description("say what a model's file says of itself, which loader fits, and a configuration to paste")
  .argument("<file>", "an .onnx file, or an address as in model_path")
  .option("--json", "print JSON")
  .addHelpText(
    "after",
    examples(
      `infermill models inspect yolov8n.onnx`,
      `infermill models inspect hf://owner/repository/model.onnx`,
    ),
  )
  .action(async (file: string, options: { json?: boolean }) =>
    (await import("./modelsInspect.ts")).inspectModel(file, options),
  );

const webhooks = program
  .command("webhooks")
  .description("look after the webhook deliveries: list them, send them again, show the signing secret");

webhooks
  .command("list")
  .description(
    "list the deliveries that failed for good, the newest pending and delivered ones, and the gone URLs",
  )
  .option(...CONFIG_OPTION)
  .option("--failed", "those that failed for good only")
  .option("--run <id>", "those of this bulk run")
  .option("--prediction <id>", "those of this prediction")
  .option("--json", "print JSON")
  .action(async (options: ListOptions) => (await import("./webhooks.ts")).listWebhooks(options));

webhooks
  .command("replay")
  .description("send deliveries again, with all their attempts before them")
  .argument("[ids...]", "ids of the deliveries")
  .option(...CONFIG_OPTION)
  .option("--all-failed", "all that failed for good")
  .addHelpText("after", examples(`infermill webhooks replay --all-failed`))
  .action(async (ids: string[], options: { config?: string; allFailed?: boolean }, command: Command) => {
    if ((ids.length === 0) !== (options.allFailed === true))
      command.error("error: name the deliveries to send again, or --all-failed, and not both");
    await (await import("./webhooks.ts")).replayWebhooks(ids, options);
  });

webhooks
  .command("secret")
  .description("print the secret that receivers verify signatures with; one is made where there is none")
  .option(...CONFIG_OPTION)
  .action(async (options: { config?: string }) => (await import("./webhooks.ts")).showWebhookSecret(options));

try {
  await program.parseAsync();
} catch (error) {
  // commander has printed its own message already.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  else {
    exitWith(error);
    // Whatever is still open must not keep a process that failed.
    process.exit();
  }
}
