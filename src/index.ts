/** What users of the package import: the client, what a custom loader builds on, and their types. */
export { ApiError, InfermillClient, PredictionFailedError, ServerUnreachableError } from "./client/client.ts";
export type { BulkRunRequest, ClientOptions, SubmitOptions } from "./client/client.ts";
export { closeModels, executeModel } from "./executeModel.ts";
export type { ExecuteOptions } from "./executeModel.ts";
export * from "./loaders/public.ts";
