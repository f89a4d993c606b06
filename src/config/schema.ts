/**
 * Every setting of infermill, with its meaning, unit and default. The same
 * schema checks the file and makes the JSON Schema that editors complete from.
 */
import { DEVICE, DEVICE_NAMES } from "../core/devices.ts";
import { z } from "zod";
import { allowedHostsSchema, consoleSchema, corsOriginsSchema, trustedProxiesSchema } from "./browsers.ts";
import { redisTlsSchema, redisUrlSchema, tlsMismatch } from "./redis.ts";
import { folderOrPlaceSchema, s3Schema, storagePlaceSchema } from "./storagePlace.ts";
import { MAX_DURATION_MS, urlInputsSchema, webhooksSchema } from "./webhooks.ts";

const wholeNumber = (least: number) =>
  z.int({ error: ({ code }) => (code === "invalid_type" ? "must be a whole number" : undefined) }).min(least);
const path = z.string().min(1);

/** What a model is called; also the name of its queue and part of its URLs. */
export const MODEL_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

/** First parts of the api's own paths. `POST /{Model}` would never reach a model of such a name. */
const RESERVED_NAMES: ReadonlySet<string> = new Set([
  "v1",
  "v2",
  "health",
  "docs",
  "dashboard",
  "metrics",
  "openapi.json",
  "console",
]);

function isReserved(nameOrPath: string): boolean {
  return RESERVED_NAMES.has(nameOrPath.replace(/^\//, "").split("/")[0]!.toLowerCase());
}

const modelName = z
  .string()
  .regex(MODEL_NAME, { error: "a model's name must match [A-Za-z0-9][A-Za-z0-9_.-]*" })
  .refine((name) => !isReserved(name), {
    error: `must be called otherwise: the api's own paths begin with ${[...RESERVED_NAMES].join(", ")}, so POST /<model> would not reach it`,
  });
const endpoint = z
  .string()
  .regex(/^(\/[\w.~-]+)+$/, { error: 'must be a path such as "/CocoObjectDetection_De"' })
  .refine((given) => !isReserved(given), {
    error: `must not begin with one of the api's own paths: ${[...RESERVED_NAMES].map((name) => `/${name}`).join(", ")}`,
  });

const device = z.string().regex(DEVICE, { error: `must be ${DEVICE_NAMES}` });

/** Of `max_batch_size`. */
export const DEFAULT_MAX_BATCH_SIZE = 8;

export const modelSchema = z
  .looseObject({
    loader: z
      .string()
      .regex(/^[A-Za-z_$][\w$]*ModelLoader$/, {
        error: "must be the name of a class that ends in ModelLoader",
      })
      .meta({
        description:
          "Class that runs this model: a built-in loader, or the class that model_loader_file has.",
      }),
    model_loader_file: path.optional().meta({
      description:
        "TypeScript, JavaScript or Python file that has a custom loader class, relative to the configuration; in Python also a folder, or `module:Class`.",
    }),
    python: path.optional().meta({
      description:
        "Interpreter of a loader in Python, or the folder of its virtual environment. Default: `.venv` beside the loader file or the configuration, VIRTUAL_ENV, `python3`.",
    }),
    env: z
      .record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string())
      .optional()
      .meta({ description: "Further environment variables of this model's engines." }),
    model_path: z.array(path).default([]).meta({
      description:
        "Files of the model: a path relative to the configuration, `hf://owner/repository/file.onnx@revision`, `https://…#sha256=…`, or `demo://centernet`.",
    }),
    class_names: z
      .union([z.array(z.string()), path])
      .default([])
      .meta({
        description:
          'Labels by class index: ["imagenet"], ["coco"], ["coco91"], ["fer"], a list, or the path of a file (a JSON array, or a label per line).',
      }),
    classes: z
      .array(z.union([z.string(), z.int()]))
      .default([])
      .meta({ description: "Labels or class indices to keep in the findings; empty keeps all." }),
    input_image_size: z
      .tuple([wholeNumber(1), wholeNumber(1)])
      .optional()
      .meta({
        description:
          "Width and height in pixels that pictures are resized to. Default: what the model's own input says.",
      }),
    device: z
      .union([device, z.array(device).min(1)])
      .default("cpu")
      .meta({
        description:
          'Device of the engines: "cpu", "cuda", "cuda:1", "webgpu", or a list; each entry gets `instances` engines.',
      }),
    instances: wholeNumber(1).optional().meta({
      description:
        "Engines on each device. Default: on cpu the cores divided among the models of this configuration, on a GPU 1.",
    }),
    intra_op_threads: wholeNumber(1).optional().meta({
      description:
        "Threads that one run uses on the CPU. Default: the cores divided among all engines, at least 1.",
    }),
    max_batch_size: wholeNumber(1)
      .max(1024)
      .optional()
      .meta({
        description: `Most predictions that run together. 1 turns batching off. Default: ${DEFAULT_MAX_BATCH_SIZE}; an ONNX model on the CPU is measured at its start and takes the number up to ${DEFAULT_MAX_BATCH_SIZE} that is fastest for each prediction.`,
      }),
    max_queue_delay_ms: z.number().min(0).max(60_000).default(0).meta({
      description:
        "Longest time in milliseconds that a free engine waits for a batch to fill, counted from its first prediction. A full batch goes at once.",
    }),
    attempts: wholeNumber(1).max(100).default(3).meta({
      description:
        "How often a prediction is tried when its fault may pass (a lost connection, a RetryableError of the loader). Bad input is never tried again.",
    }),
    timeout_ms: wholeNumber(1).max(MAX_DURATION_MS).default(60_000).meta({
      description:
        "Longest time in milliseconds that a prediction may run, without its wait. An engine that exceeds it is killed and replaced.",
    }),
    result_ttl_seconds: wholeNumber(1)
      .default(86_400)
      .meta({ description: "How long an ended prediction is kept, in seconds." }),
    max_queue_length: wholeNumber(1)
      .default(10_000)
      .meta({ description: "Most predictions that may wait. One more is refused with 429." }),
  })
  .meta({ description: "One model. Further keys are the loader's own." });

export type ModelConfig = z.output<typeof modelSchema>;

const settings = z.strictObject({
  $schema: z.string().optional().meta({ description: "Where editors find the JSON Schema of this file." }),
  host: z
    .string()
    .min(1)
    .default("127.0.0.1")
    .meta({ description: "Address to listen on; 0.0.0.0 for every one. Environment: HOST." }),
  port: wholeNumber(0)
    .max(65_535)
    .default(8448)
    .meta({ description: "Port to listen on; 0 picks a free one. Environment: PORT." }),
  grpc_port: wholeNumber(0).max(65_535).optional().meta({
    description:
      "Port on which the Open Inference Protocol is served over gRPC, on the same host; 0 picks a free one. Default: none, there is no gRPC. Environment: GRPC_PORT.",
  }),
  public_url: z
    .string()
    .refine(isPublicUrl, {
      error: "must be an http:// or https:// URL without user name, query and fragment",
    })
    .optional()
    .meta({
      description:
        "Where clients reach the api, such as https://infermill.example.org or, under a path behind a proxy, https://example.org/infermill: the links in webhooks begin with it, and those in answers with its path. Default: none, they are paths from /.",
    }),
  console: consoleSchema,
  cors_origins: corsOriginsSchema,
  allowed_hosts: allowedHostsSchema,
  trusted_proxies: trustedProxiesSchema,
  api_keys: z
    .array(
      z.string().regex(/^[\x21-\x7e]{16,}$/, {
        error: "must be 16 or more printable ASCII characters without spaces",
      }),
    )
    .default([])
    .meta({
      description:
        "Keys of which every request must bring one, as `Authorization: Bearer <key>` or as the password of HTTP Basic; /health is open. Default: none, and whoever reaches the port may do everything. Several in the environment are separated by commas. Environment: INFERMILL_API_KEYS.",
    }),
  data_dir: path.default("data").meta({
    description:
      "Folder for the embedded Redis, inputs and converted models; relative to the configuration. Environment: INFERMILL_DATA_DIR.",
  }),
  redis_url: redisUrlSchema.optional(),
  redis_tls: redisTlsSchema.optional(),
  redis_prefix: z
    .string()
    .regex(/^[\w.-]+$/)
    .default("infermill")
    .meta({ description: "First part of every Redis key." }),
  max_connections: wholeNumber(1).optional().meta({
    description:
      "Connections that the api holds at a time; on those beyond it only /health is answered, all else gets 503. Default: half of the file descriptors that the process may have, at most 10000.",
  }),
  min_upload_bytes_per_second: wholeNumber(0).default(512).meta({
    description:
      "Slowest body that is waited for, over 10 seconds; a slower one is cut with 408. 0 waits for all.",
  }),
  min_free_disk_bytes: wholeNumber(0)
    .default(128 * 1024 * 1024)
    .meta({
      description:
        "Bytes that stay free on the disk of data_dir: below that, uploads and bulk runs get 507 disk_full, and readiness says so.",
    }),
  max_memory_share: z.number().min(0.1).max(1).default(0.85).meta({
    description:
      "Part of the maxmemory of Redis that submissions may fill; beyond it they get 503 queue_storage_full, so that what was accepted can end. Where Redis has no maxmemory, there is no limit.",
  }),
  inputs: z.enum(["files", "redis", "s3"]).default("files").meta({
    description:
      "Where uploaded pictures wait: files in data_dir (the api and the workers share that disk), redis, or s3, below input_storage.",
  }),
  input_storage: storagePlaceSchema.optional().meta({
    description:
      'Bucket and prefix of `inputs: "s3"`, as s3://bucket/prefix or with region, endpoint and path_style. Nothing else may lie below the prefix: what is old there is removed.',
  }),
  s3: s3Schema,
  input_ttl_seconds: wholeNumber(60)
    .default(86_400)
    .meta({ description: "How long an input is kept whose prediction never ended, in seconds." }),
  max_body_bytes: wholeNumber(1024)
    .default(32 * 1024 * 1024)
    .meta({ description: "Largest request body in bytes." }),
  // Dictionaries travel through Redis, and up to 32 of them to an engine in one message: a string of at most 512 MiB.
  max_request_bytes: wholeNumber(1024)
    .default(8 * 1024 * 1024)
    .meta({
      description:
        "Largest request dictionary without its pictures (Base_64, image), in bytes of JSON. Masks and replacement pictures (Msk_img, Rep_img) count.",
    }),
  max_inline_output_bytes: wholeNumber(0)
    .default(1024 * 1024)
    .meta({
      description:
        "Largest tensor, in bytes of its raw form, that an answer of one prediction carries as JSON numbers; a larger one has the URL of its raw bytes instead.",
    }),
  max_picture_pixels: wholeNumber(1)
    .default(64_000_000)
    .meta({ description: "Most pixels (width × height) that a picture may decode to." }),
  max_decoded_bytes: wholeNumber(1)
    .default(384 * 1024 ** 2)
    .meta({
      description:
        "Most bytes that the pictures of one request may decode to, by their headers: width × height × channels; 16 bits a channel count twice, and so does what must be held as a whole (interlaced PNG, progressive JPEG, all formats but those two).",
    }),
  max_pictures_per_request: wholeNumber(1)
    .default(16)
    .meta({ description: "Most pictures in one request dictionary." }),
  max_predictions_per_call: wholeNumber(1)
    .default(1000)
    .meta({ description: "Most request dictionaries in one NDJSON or JSON array body." }),
  bulk_roots: z
    .record(z.string().regex(/^[\w.-]+$/), folderOrPlaceSchema)
    .default({})
    .meta({
      description:
        "Folders or s3://bucket/prefix whose files may be named by reference, by the name that clients use; folders are relative to the configuration.",
    }),
  annotate_roots: z
    .record(z.string().regex(/^[\w.-]+$/), folderOrPlaceSchema)
    .default({})
    .meta({
      description:
        "Folders or s3://bucket/prefix into which bulk runs may write annotated copies, by the name that clients use; apart from those of bulk_roots; folders are relative to the configuration.",
    }),
  results_roots: z
    .record(z.string().regex(/^[\w.-]+$/), folderOrPlaceSchema)
    .default({})
    .meta({
      description:
        "Folders or s3://bucket/prefix into which bulk runs may write their results, by the name that clients use; folders are relative to the configuration.",
    }),
  url_inputs: urlInputsSchema,
  webhooks: webhooksSchema,
  bulk_ttl_seconds: wholeNumber(60)
    .default(7 * 86_400)
    .meta({ description: "How long an ended bulk run and its results are kept, in seconds." }),
  max_manifest_bytes: wholeNumber(1024)
    .default(1024 ** 3)
    .meta({
      description: "Largest manifest of a bulk run in bytes; one of its lines is limited by max_body_bytes.",
    }),
  log_level: z
    .enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"])
    .default("info")
    .meta({ description: "Least severe log line that is written. Environment: LOG_LEVEL." }),
  endpoints: z.record(endpoint, z.string()).default({}).meta({
    description:
      "Further paths that answer like POST /{Model}, IMIL's synchronous endpoint: path to model name. A path that is a model's own name is that model's.",
  }),
  sync_timeout_ms: wholeNumber(1).max(3_600_000).default(60_000).meta({
    description:
      "Longest time in milliseconds that POST /{Model}, /v2/…/infer and /v1/embeddings wait for their response; then the prediction is cancelled and the answer is 504.",
  }),
  default_model: z.string().optional().meta({
    description:
      "Model of `executeModel` and `infermill test` where the request names none. Default: the only one.",
  }),
  models: z
    .record(modelName, modelSchema)
    .refine((models) => Object.keys(models).length > 0, { error: "must name at least one model" })
    .meta({ description: "What is served, by model name." }),
});

/** The path of `public_url`, without a slash at its end; empty where there is none. */
export function pathOfUrl(publicUrl: string | undefined): string {
  if (publicUrl === undefined || !URL.canParse(publicUrl)) return "";
  return new URL(publicUrl).pathname.replace(/\/+$/, "");
}

function isPublicUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:\/\/[^@?#]+$/.test(text);
}

export const configSchema = settings.superRefine((config, context) => {
  const mustBeConfigured = (name: string, key: string[]) => {
    if (Object.hasOwn(config.models, name)) return;
    const message = `must be the name of a configured model (${Object.keys(config.models).join(", ")})`;
    context.addIssue({ code: "custom", path: key, message, input: name });
  };
  const [, first] = pathOfUrl(config.public_url).split("/");
  if (first !== undefined && (isReserved(first) || Object.hasOwn(config.models, first))) {
    const message = "must not have a path that begins like one of the api's own paths or a model's name";
    context.addIssue({ code: "custom", path: ["public_url"], message, input: config.public_url });
  }
  const mismatch = config.redis_tls && tlsMismatch(config.redis_url);
  if (mismatch !== undefined)
    context.addIssue({ code: "custom", path: ["redis_tls"], message: mismatch, input: config.redis_tls });
  for (const [route, name] of Object.entries(config.endpoints)) mustBeConfigured(name, ["endpoints", route]);
  if (config.default_model !== undefined) mustBeConfigured(config.default_model, ["default_model"]);
  const isStored = config.input_storage !== undefined;
  if (isStored !== (config.inputs === "s3"))
    context.addIssue({
      code: "custom",
      path: ["input_storage"],
      message: isStored ? 'goes with inputs: "s3" only' : 'must be set for inputs: "s3"',
      input: config.input_storage,
    });
});

/** The configuration as it is used: defaults filled in, paths absolute, frozen. */
export type Config = Readonly<z.output<typeof configSchema>> & {
  /** The file that it was read from; relative paths started from its folder. */
  readonly file: string;
};
