/** What commands that speak to a server have in common. */
import { ApiError, InfermillClient } from "../client/client.ts";
import { UsageError } from "./exit.ts";

/**
 * A client without retries of its own: a command follows for as long as it can. Its key is INFERMILL_API_KEY.
 * @throws UsageError where `server` is no http:// or https:// URL
 */
export function clientOf(server: string): InfermillClient {
  if (!/^https?:\/\//.test(server))
    throw new UsageError(`--server must be an http:// or https:// URL, got ${server}`);
  return new InfermillClient(server, { apiKey: process.env["INFERMILL_API_KEY"], retries: 0 });
}

/** What the server refuses is a matter of usage. */
export function explain(error: unknown): never {
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401)
    throw new UsageError(
      "the server takes calls with a key only: set INFERMILL_API_KEY to one of its api_keys",
    );
  throw error.status < 500 ? new UsageError(`the server answered ${error.status}: ${error.message}`) : error;
}
