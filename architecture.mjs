/**
 * The rooms of src and what each may import; `npm run architecture` fails on whatever else, on circles, and on rooms
 * that are not listed here. Imports of types count, and so do dynamic ones. CONTRIBUTING.md draws the same picture.
 */

/** Files that stand in src itself and belong to nobody: every room may import them. */
const SHARED = ["errors.ts", "closest.ts", "fileLock.ts", "version.ts"];

const ROOMS = {
  // What requests, predictions and bulk runs are.
  core: [],
  // IMIL's dialect, and that of the Open Inference Protocol.
  imil: ["core"],
  tensors: ["core"],

  // Models: from a file to a response. Nothing here knows of HTTP, Redis or jobs.
  models: ["core"],
  loaders: ["models", "imil", "tensors", "config", "core"],
  engines: ["loaders", "imil", "config", "core"],

  // Spans, and how their context travels.
  tracing: [],

  // Queues: everything that touches Redis.
  egress: [],
  config: ["imil", "egress", "core"],
  // Object storage.
  storage: ["config", "core"],
  redis: ["config", "core"],
  queue: ["redis", "storage", "tracing", "config", "core"],

  // Processes: api, worker and coordinator meet in the queue only.
  worker: ["engines", "queue", "redis", "storage", "egress", "tracing", "config", "core"],
  bulk: ["annotate", "queue", "redis", "storage", "imil", "tracing", "config", "core"],
  webhooks: ["queue", "redis", "egress", "tracing", "config", "core"],
  // What is made of the results of a bulk run.
  report: ["bulk", "annotate", "loaders", "queue", "storage", "imil", "config", "core"],
  api: ["bulk", "queue", "redis", "egress", "imil", "tensors", "tracing", "config", "core"],
  protocols: [
    "annotate",
    "api",
    "report",
    "bulk",
    "queue",
    "egress",
    "imil",
    "tensors",
    "tracing",
    "config",
    "core",
  ],

  annotate: ["loaders", "imil", "core"],
  client: ["imil", "core"],
  // The web page: knows infermill by its HTTP API only.
  console: ["client", "annotate/labelColour.ts", "imil", "core"],
  // Starts whatever there is.
  cli: [
    "executeModel.ts",
    "annotate",
    "api",
    "bulk",
    "client",
    "config",
    "core",
    "engines",
    "imil",
    "loaders",
    "models",
    "protocols",
    "queue",
    "redis",
    "report",
    "storage",
    "tensors",
    "tracing",
    "webhooks",
    "worker",
  ],
};

/** Rooms that only know models: they take neither requests nor jobs. */
const WITHOUT_HTTP_OR_REDIS = ["core", "imil", "tensors", "models", "loaders"];
const HTTP_AND_REDIS = "^(express|ioredis|bullmq|helmet|@bull-board/.*|(node:)?https?)$";

const anyOf = (names) => `(${names.join("|")})`;

/** A room is a folder; what ends in .ts is a file of src itself. */
const pathOf = (name) => (name.endsWith(".ts") ? `${name.replace(".", "\\.")}$` : `${name}/`);

const importsOfRooms = Object.entries(ROOMS).map(([room, rooms]) => ({
  name: `imports-of-${room}`,
  comment: `src/${room} may import ${[...rooms, ...SHARED].join(", ")}`,
  severity: "error",
  from: { path: `^src/${room}/` },
  to: { path: "^src/", pathNot: `^src/${anyOf([room, ...rooms, ...SHARED].map(pathOf))}` },
}));

export default {
  forbidden: [
    ...importsOfRooms,
    {
      name: "shared-files-stand-alone",
      severity: "error",
      from: { path: `^src/${anyOf(SHARED.map(pathOf))}` },
      to: { path: "^src/", pathNot: `^src/${anyOf(SHARED.map(pathOf))}` },
    },
    {
      name: "room-is-not-listed",
      comment: "name the room and what it may import in architecture.mjs",
      severity: "error",
      from: { path: "^src/[^/]+/", pathNot: `^src/${anyOf(Object.keys(ROOMS))}/` },
      to: {},
    },
    {
      name: "worker-speaks-the-engine-protocol",
      comment: "what runs inside of an engine is not the worker's",
      severity: "error",
      from: { path: "^src/worker/" },
      to: { path: "^src/engines/", pathNot: "^src/engines/(protocol|engineChild)\\.ts$" },
    },
    {
      name: "protocols-stand-beside-each-other",
      severity: "error",
      from: { path: "^src/protocols/([^/]+)/" },
      to: { path: "^src/protocols/", pathNot: "^src/protocols/$1/" },
    },
    {
      name: "nothing-imports-the-public-entry",
      severity: "error",
      from: {},
      to: { path: "^src/index\\.ts$" },
    },
    {
      name: "models-know-no-http-and-no-redis",
      severity: "error",
      from: { path: `^src/${anyOf(WITHOUT_HTTP_OR_REDIS)}/` },
      to: { path: `${HTTP_AND_REDIS}|node_modules/(express|ioredis|bullmq|helmet|@bull-board)/` },
    },
    {
      name: "the-client-runs-in-browsers",
      severity: "error",
      from: { path: `^src/${anyOf(["client", "console", "core"])}/` },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "object-storage-is-loaded-when-it-is-used",
      comment:
        "who has no s3:// URL pays neither its start-up time nor its memory: import() it in storage.ts",
      severity: "error",
      from: { pathNot: "^src/storage/s3\\.ts$" },
      to: { path: "^src/storage/s3\\.ts$|node_modules/(@aws-sdk|@smithy)/", dynamic: false },
    },
    {
      name: "traces-are-loaded-when-they-are-on",
      comment:
        "who has no traces pays neither their start-up time nor their memory: import() it in tracing.ts",
      severity: "error",
      from: { pathNot: "^src/tracing/sdk\\.ts$" },
      // The api is known by its types, which cost nothing; tracing.test.ts looks at what a process has loaded.
      to: { path: "^src/tracing/sdk\\.ts$|node_modules/@opentelemetry/(?!api/)", dynamic: false },
    },
    {
      name: "no-circle",
      severity: "error",
      from: {},
      to: { circular: true },
    },
    {
      name: "no-development-package-in-src",
      severity: "error",
      // The console is bundled when it is built.
      from: { path: "^src/", pathNot: "^src/console/" },
      to: { dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown", "unknown"] },
    },
  ],
  options: {
    // TypeScript 7.0 has no API for other tools, and swc parses all that there is here.
    parser: "swc",
    // As it is called here, it can't read JSX: test/unit/console/imports.test.ts looks at those files.
    exclude: { path: "\\.tsx$" },
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "types", "default"],
      extensions: [".ts", ".js"],
    },
  },
};
