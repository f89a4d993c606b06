/** Every protocol that the api speaks; a new one is a folder here and a line below. */
import type { Protocol } from "../api/api.ts";
import { imil } from "./imil/imil.ts";
import { native } from "./native/native.ts";
import { openAi } from "./openai/openai.ts";
import { openInference } from "./openinference/openinference.ts";

/** In the order in which their paths are tried: IMIL's fits every path of one part. */
export const protocols: readonly Protocol[] = [native, openInference, openAi, imil];
