/** The Open Inference Protocol v2, as KServe specifies it and Triton extends it: `/v2` over HTTP, and gRPC. */
import type { Protocol } from "../../api/api.ts";
import { listenGrpc } from "./grpc.ts";
import { encodeError, openInferenceRoutes } from "./routes.ts";

export const openInference: Protocol = {
  name: "openinference",
  routes: () => openInferenceRoutes,
  errors: { below: "/v2", encode: encodeError },
  listen: listenGrpc,
};
