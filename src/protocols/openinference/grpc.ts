/** The Open Inference Protocol over gRPC, on a port of its own: `grpc_port`. */
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  Server,
  type Metadata,
  ServerCredentials,
  status,
  type handleUnaryCall,
  type sendUnaryData,
  type ServerDuplexStream,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import type { Api, Listener } from "../../api/api.ts";
import { createKeyCheck } from "../../api/authorize.ts";
import { ClientGoneError, hideUnexpected, knownError } from "../../api/problems.ts";
import { checkReadiness } from "../../api/readiness.ts";
import { urlOf } from "../../api/server.ts";
import { ConfigError, InfermillError } from "../../errors.ts";
import {
  isModelReady,
  modelConfiguration,
  modelMetadata,
  repositoryIndex,
  serverMetadata,
  statistics,
} from "./describe.ts";
import { failSpan, startSpan, within, type Span } from "../../tracing/tracing.ts";
import { readMessage, writeMessage, type InferRequestMessage } from "./grpcMessages.ts";
import { checkVersion, infer } from "./infer.ts";
import { LOADING_REFUSED, NotSupportedError } from "./routes.ts";

/** Beside `src` and `dist`, where clients find it too. */
const PROTO = fileURLToPath(new URL("../../../proto/inference.proto", import.meta.url));
const SERVICE = "inference.GRPCInferenceService";
/** Of one stream, at a time; the rest waits in the connection. */
const MAX_STREAMED = 64;

const CODES: Readonly<Record<number, status>> = {
  400: status.INVALID_ARGUMENT,
  401: status.UNAUTHENTICATED,
  404: status.NOT_FOUND,
  413: status.RESOURCE_EXHAUSTED,
  422: status.INVALID_ARGUMENT,
  429: status.RESOURCE_EXHAUSTED,
  501: status.UNIMPLEMENTED,
  503: status.UNAVAILABLE,
  507: status.RESOURCE_EXHAUSTED,
  504: status.DEADLINE_EXCEEDED,
};

interface ModelMessage {
  name: string;
  version: string;
}

type StreamCall = ServerDuplexStream<InferRequestMessage, object>;
/** What is common to calls of all kinds. */
interface Call {
  metadata: Metadata;
  cancelled: boolean;
  once(event: "cancelled", listener: () => void): unknown;
}

/** Opens the server. @throws ConfigError where it can't listen on `port` */
export async function listenGrpc(api: Api, port: number): Promise<Listener> {
  const { host, max_body_bytes: maxBytes, file } = api.config;
  const server = new Server({
    "grpc.max_receive_message_length": maxBytes,
    "grpc.max_send_message_length": -1,
  });
  const definitions = loadSync(PROTO, {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  server.addService(definitions[SERVICE] as ServiceDefinition, createHandlers(api));
  const address = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  let bound: number;
  try {
    bound = await promisify(server.bindAsync.bind(server))(address, ServerCredentials.createInsecure());
  } catch (error) {
    const problem = `can't listen on ${host}:${port}: ${(error as Error).message} (GRPC_PORT, HOST)`;
    throw new ConfigError([{ source: file, key: "grpc_port", problem }]);
  }
  return {
    url: urlOf(host, bound, "grpc"),
    async close(limitMs) {
      const limit = setTimeout(() => server.forceShutdown(), limitMs);
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      clearTimeout(limit);
    },
  };
}

function createHandlers(api: Api): UntypedServiceImplementation {
  const checkKey = createKeyCheck(api.config.api_keys);

  /** Runs what a call asks for, and counts it. @throws what is to be told, as an InfermillError */
  async function observe<T>(method: string, { metadata }: Call, run: () => Promise<T>): Promise<T> {
    const start = performance.now();
    const name = `${SERVICE}/${method}`;
    // Orchestrators ask these without a key.
    const isProbe = method === "ServerLive" || method === "ServerReady";
    const span = isProbe ? undefined : startCallSpan(name, metadata);
    let code = status.OK;
    try {
      if (!isProbe) checkKey(metadata.get("authorization")[0]?.toString());
      return await (span ? within(span, run) : run());
    } catch (thrown) {
      const error = knownError(thrown) ?? hideUnexpected(thrown, api.log, { method }).error;
      code = error instanceof ClientGoneError ? status.CANCELLED : codeOf(error);
      if (span) failSpan(span, status[code], error.message);
      throw error;
    } finally {
      const labels = { method: "gRPC", route: `/${name}`, status: status[code] };
      api.metrics.observeRequest(labels, (performance.now() - start) / 1000);
      span?.setAttribute("rpc.response.status_code", status[code]).end();
    }
  }

  function unary<Message extends object = object>(
    method: string,
    answer: (message: Message, client: AbortSignal) => object | Promise<object>,
  ): handleUnaryCall<Message, object> {
    return (call, done) => {
      const client = clientOfCall(call);
      void settle(
        observe(method, call, async () => answer(call.request, client)),
        done,
      );
    };
  }

  /** A method of one model, which is there, in its only version. */
  function ofModel(method: string, answer: (model: string) => Promise<object>) {
    return unary<ModelMessage>(method, ({ name, version }) => {
      api.predictions.model(name);
      checkVersion(name, version);
      return answer(name);
    });
  }

  async function modelInfer(message: InferRequestMessage, client: AbortSignal): Promise<object> {
    const { model_name: model, model_version: version } = message;
    api.predictions.model(model);
    checkVersion(model, version);
    const request = readMessage(message);
    return writeMessage(model, request, await infer(api, model, request, client));
  }

  const refuseLoading = (method: string) =>
    unary(method, () => {
      throw new NotSupportedError(LOADING_REFUSED);
    });

  return {
    ServerLive: unary("ServerLive", () => ({ live: true })),
    ServerReady: unary("ServerReady", async () => ({
      ready: (await checkReadiness(api)).status === "ready",
    })),
    ServerMetadata: unary("ServerMetadata", () => serverMetadata),
    ModelReady: ofModel("ModelReady", async (model) => ({ ready: await isModelReady(api, model) })),
    ModelMetadata: ofModel("ModelMetadata", (model) => modelMetadata(api, model)),
    ModelConfig: ofModel("ModelConfig", async (model) => ({ config: await modelConfiguration(api, model) })),
    ModelStatistics: unary<ModelMessage>("ModelStatistics", ({ name, version }) => {
      if (name === "") return statistics(api);
      api.predictions.model(name);
      checkVersion(name, version);
      return statistics(api, name);
    }),
    RepositoryIndex: unary<{ ready: boolean }>("RepositoryIndex", async ({ ready }) => ({
      models: await repositoryIndex(api, ready),
    })),
    RepositoryModelLoad: refuseLoading("RepositoryModelLoad"),
    RepositoryModelUnload: refuseLoading("RepositoryModelUnload"),
    ModelInfer: unary("ModelInfer", modelInfer),
    ModelStreamInfer: (call: StreamCall) => {
      /** Runs side by side, and answers in the order in which they came. */
      let lastAnswer: Promise<unknown> = Promise.resolve();
      let underWay = 0;
      const client = clientOfCall(call);
      call.on("data", (message: InferRequestMessage) => {
        if (++underWay >= MAX_STREAMED) call.pause();
        const answering = observe("ModelStreamInfer", call, () => modelInfer(message, client)).then(
          (response) => ({ infer_response: response }),
          (error: InfermillError) => ({
            error_message: error.message,
            // Clients find the request by its id.
            infer_response: { model_name: message.model_name, id: message.id },
          }),
        );
        lastAnswer = lastAnswer.then(async () => {
          call.write(await answering);
          underWay--;
          call.resume();
        });
      });
      call.on("end", () => void lastAnswer.then(() => call.end()));
      call.on("error", () => {});
    },
  };
}

function startCallSpan(name: string, metadata: Metadata): Span | undefined {
  return startSpan(name, {
    kind: "SERVER",
    from: metadata.getMap() as Record<string, string>,
    attributes: { "rpc.system.name": "grpc", "rpc.method": name },
  });
}

async function settle(answering: Promise<object>, done: sendUnaryData<object>): Promise<void> {
  try {
    done(null, await answering);
  } catch (error) {
    done({ code: codeOf(error as InfermillError), details: (error as Error).message });
  }
}

function codeOf(error: InfermillError): status {
  return CODES[error.status] ?? status.INTERNAL;
}

/** Aborted when the client cancels the call, or its deadline passes. */
function clientOfCall(call: Call): AbortSignal {
  const controller = new AbortController();
  if (call.cancelled) controller.abort();
  else call.once("cancelled", () => controller.abort());
  return controller.signal;
}
