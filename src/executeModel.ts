/**
 * The local method call, as IMIL has it: request dictionary in, response
 * dictionary out, in this process and without Redis. Each model is loaded by its
 * first request and kept.
 */
import { resolve } from "node:path";
import { loadConfig } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import { outputsOf, type ResponseDictionary } from "./core/request.ts";
import { BadInputError, LoaderError, ModelNotFoundError, toInfermillError } from "./errors.ts";
import type { BaseModelLoader } from "./loaders/BaseModelLoader.ts";
import type { PredictionRequest, PredictionResponse } from "./imil/dictionaries.ts";
import { openModel } from "./engines/openModel.ts";
import { checkLoaders } from "./loaders/openLoader.ts";
import { predictAlone } from "./loaders/outcomes.ts";
import { asDictionary, checkRequest, isBlank } from "./imil/requestSchema.ts";
import { inlineTensors } from "./tensors/dialect.ts";
import { buildErrorResponse, toImilResponse } from "./imil/response.ts";
import { formatJson, parseJson } from "./core/json.ts";

export interface ExecuteOptions {
  /** Configuration file, infermill's or IMIL's. Default: INFERMILL_CONFIG, else config/infermill.json. */
  config?: string | undefined;
  /** Told when a model is fetched or converted, and what of a mil_config.json is not served. */
  onProgress?: (line: string) => void;
}

/** A model that is open in this process. */
interface LocalModel {
  run(request: PredictionRequest): Promise<ResponseDictionary>;
  readonly loader: BaseModelLoader;
}

/** What was read and opened for one configuration file; `closeModels` closes all of it. */
interface LocalConfig {
  readonly config: Promise<Config>;
  readonly models: Map<string, Promise<LocalModel>>;
}

const opened = new Map<string, LocalConfig>();

/**
 * Runs one request on the model that its `Model` names: a dictionary gives a dictionary, JSON text gives JSON text.
 *
 * Whatever is wrong with the request, or fails while it runs, comes back as a response dictionary with `Rc` and `Rm`.
 * @throws ConfigError, or the loader's own error, where the configuration or the model itself can't be used
 */
export function executeModel(request: string, options?: ExecuteOptions): Promise<string>;
export function executeModel(
  request: PredictionRequest,
  options?: ExecuteOptions,
): Promise<PredictionResponse>;
export async function executeModel(
  request: string | PredictionRequest,
  options: ExecuteOptions = {},
): Promise<string | PredictionResponse> {
  if (typeof request !== "string") return execute(() => request, options);
  return formatJson(await execute(() => parseRequest(request), options));
}

async function execute(read: () => unknown, options: ExecuteOptions): Promise<PredictionResponse> {
  const run = { model: "infermill", startedAt: new Date() };
  const { config } = openConfig(options);
  const { default_model: defaultModel, models } = await config;
  let request: PredictionRequest = {};
  try {
    request = asDictionary(read());
    run.model = chooseModel(request, Object.keys(models), defaultModel);
  } catch (error) {
    return failed(error);
  }
  const model = await openLocalModel(run.model, options);
  try {
    checkRequest(request, run.model, model.loader.describe());
    if (!isBlank(request["image"])) {
      throw new BadInputError(
        "image works through a server only; here the picture must come in Base_64, as the base64 of its file",
      );
    }
    const response = inlineTensors(await model.run(request));
    return toImilResponse(request, response, outputsOf(response), run);
  } catch (error) {
    return failed(error);
  }

  function failed(error: unknown): PredictionResponse {
    const known = toInfermillError(error, (detail, cause) => new LoaderError(detail, cause));
    return buildErrorResponse(request, known, run);
  }
}

function parseRequest(text: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    throw new BadInputError(`the request is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** @throws ModelNotFoundError, BadInputError where none is named and there are several */
export function chooseModel(
  request: PredictionRequest,
  names: readonly string[],
  defaultModel: string | undefined,
): string {
  const named = String(request.Model ?? "").trim();
  if (names.includes(named)) return named;
  const configured = `configured are: ${names.join(", ")}`;
  if (named !== "") throw new ModelNotFoundError(`there is no model "${named}"; ${configured}`);
  const [only] = names.length === 1 ? names : [];
  const chosen = defaultModel ?? only;
  if (chosen === undefined)
    throw new BadInputError(`Model is missing: it must name the model to run; ${configured}`);
  return chosen;
}

/** Opens a model, once however many ask at the same time; one that failed is tried again by the next who asks. */
export async function openLocalModel(modelName: string, options: ExecuteOptions): Promise<LocalModel> {
  const { config, models } = openConfig(options);
  const known = models.get(modelName);
  if (known) return known;
  const opening = config
    .then((loaded) => openModel(loaded, modelName, options.onProgress ?? (() => {})))
    .then(takeTurns);
  models.set(modelName, opening);
  opening.catch(() => models.delete(modelName));
  return opening;
}

/** The configuration that the options name, read once. */
export function openConfig({ config: file, onProgress }: ExecuteOptions): LocalConfig {
  const key = resolve(file ?? (process.env["INFERMILL_CONFIG"] || "config/infermill.json"));
  const known = opened.get(key);
  if (known) return known;
  const config = loadConfig({ file: key, check: checkLoaders, onWarning: onProgress });
  const local: LocalConfig = { config, models: new Map() };
  opened.set(key, local);
  config.catch(() => opened.delete(key));
  return local;
}

/** A loader that can't overlap must not be called again before it returned. */
function takeTurns(loader: BaseModelLoader): LocalModel {
  let lastTurn: Promise<unknown> = Promise.resolve();
  const predict = (request: PredictionRequest) => predictAlone(loader, request);
  return {
    loader,
    run(request) {
      if (loader.overlaps) return predict(request);
      const turn = lastTurn.then(() => predict(request));
      lastTurn = turn.catch(() => {});
      return turn;
    },
  };
}

/** Closes every model that `executeModel` opened; a later call opens them anew. */
export async function closeModels(): Promise<void> {
  const models = [...opened.values()].flatMap((local) => [...local.models.values()]);
  opened.clear();
  const open = await Promise.allSettled(models);
  for (const outcome of open) {
    if (outcome.status === "fulfilled") await outcome.value.loader.close();
  }
}
