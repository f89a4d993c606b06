/** Inputs that an engine can't reach: those that wait in Redis or came in the job itself travel to it as bytes. */
import type { RedisClient } from "../redis/connections.ts";
import {
  lostInput,
  noTimings,
  toWire,
  type Member,
  type MemberInput,
  type MemberOutcome,
} from "../engines/protocol.ts";
import type { InputLabel, LocalInputRef } from "../queue/inputs.ts";

/** An input that an engine can read, or that this process reads for it. */
export type ReachableInput = LocalInputRef | ({ bytes: Buffer } & InputLabel);

/** A member as the queue has it. */
export interface StoredMember extends Omit<Member, "inputs"> {
  inputs: readonly ReachableInput[];
}

/** Reads what an engine can't; at once where there is nothing to read. What can't be read is its member's outcome. */
export type ReadStoredInputs = (members: StoredMember[]) => Member[] | Promise<(Member | MemberOutcome)[]>;

export function createStoredInputReader(redis: RedisClient): ReadStoredInputs {
  return (members) => {
    const refs = members.flatMap(({ inputs }) => inputs);
    const keys = refs.flatMap((ref) => ("redis" in ref ? [ref.redis] : []));
    if (keys.length > 0) return readFromRedis(redis, members, keys);
    if (!refs.some((ref) => "data" in ref)) return members as Member[];
    return members.map((member) => ({ ...member, inputs: member.inputs.map((ref) => toInput(ref)!) }));
  };
}

async function readFromRedis(
  redis: RedisClient,
  members: StoredMember[],
  keys: readonly string[],
): Promise<(Member | MemberOutcome)[]> {
  const startedAt = performance.now();
  const values = await redis.mgetBuffer([...keys]);
  const byKey = new Map(keys.map((key, index) => [key, values[index] ?? undefined]));
  return members.map((member) => {
    const inputs = member.inputs.map((ref) => toInput(ref, byKey));
    if (inputs.every((input) => input !== undefined)) return { ...member, inputs };
    const timings = { ...noTimings(), read_ms: performance.now() - startedAt };
    return { key: member.key, error: toWire(lostInput()), timings, batch_size: 0 };
  });
}

/** @returns undefined where its key is gone */
function toInput(
  ref: ReachableInput,
  byKey?: ReadonlyMap<string, Buffer | undefined>,
): MemberInput | undefined {
  if ("data" in ref) {
    const { data, ...label } = ref;
    return { ...label, bytes: Buffer.from(data, "base64") };
  }
  if (!("redis" in ref)) return ref;
  const { redis: key, ...label } = ref;
  const bytes = byKey?.get(key);
  return bytes && { ...label, bytes };
}
