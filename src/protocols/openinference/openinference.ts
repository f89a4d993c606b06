/** The Open Inference Protocol v2, as KServe specifies it and Triton extends it: `/v2` over HTTP, and gRPC. */
import type { Api, Listener, Protocol } from "../../api/api.ts";
import { encodeError, openInferenceRoutes } from "./routes.ts";

export const openInference: Protocol = {
  name: "openinference",
  routes: () => openInferenceRoutes,
  errors: { below: "/v2", encode: encodeError },
  listen,
};

/** Opens gRPC where `grpc_port` is set; its packages are loaded only then. */
async function listen(api: Api): Promise<Listener | undefined> {
  const { grpc_port: port } = api.config;
  if (port === undefined) return undefined;
  const { listenGrpc } = await import("./grpc.ts");
  return listenGrpc(api, port);
}
