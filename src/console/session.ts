/** Who the reader is to this server: signed in or not, and whether anything may be changed. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { call, isMissing } from "./api.ts";
import type { Session } from "./answers.ts";

export const SessionContext = createContext<Session>({
  authentication: "none",
  signed_in: true,
  read_only: false,
});

export function useSession(): Session {
  return useContext(SessionContext);
}

/** A server that has no sessions lets everyone in whom it lets read the page. */
export async function readSession(): Promise<Session> {
  try {
    return await call<Session>("v1/session");
  } catch (error) {
    if (!isMissing(error)) throw error;
    return { authentication: "none", signed_in: true, read_only: false };
  }
}

/** @throws CallError where the key is none of the server's */
export async function signIn(apiKey: string): Promise<void> {
  await call("v1/session", { method: "POST", body: { api_key: apiKey } });
}

export async function signOut(): Promise<void> {
  await call("v1/session", { method: "DELETE" });
}
