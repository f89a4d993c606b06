/** Who the reader is to this server: signed in or not, and whether anything may be changed. */
import { createContext } from "preact";
import { useContext } from "preact/hooks";
import { call } from "./api.ts";
import type { Session } from "./answers.ts";

export const SessionContext = createContext<Session | undefined>(undefined);

/** Below the frame of the page there always is one. */
export function useSession(): Session {
  return useContext(SessionContext)!;
}

export function readSession(): Promise<Session> {
  return call<Session>("v1/session");
}

/** @throws CallError where the key is none of the server's */
export async function signIn(apiKey: string): Promise<void> {
  await call("v1/session", { method: "POST", body: { api_key: apiKey } });
}

export async function signOut(): Promise<void> {
  await call("v1/session", { method: "DELETE" });
}
