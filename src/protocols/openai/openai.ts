/** The part of OpenAI's protocol that has a meaning here: embeddings of texts. */
import type { Protocol } from "../../api/api.ts";
import { embeddingRoutes, encodeError } from "./embeddings.ts";

export const openAi: Protocol = {
  name: "openai",
  routes: () => embeddingRoutes,
  errors: { below: "/v1/embeddings", encode: encodeError },
};
