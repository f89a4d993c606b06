/** Inputs that wait in Redis: the worker reads them and sends their bytes, so that an engine needs no Redis. */
import type { Redis } from "ioredis";
import {
  lostInput,
  noTimings,
  toWire,
  type Member,
  type MemberInput,
  type MemberOutcome,
} from "../engines/protocol.ts";
import type { LocalInputRef } from "../queue/inputs.ts";

/** A member as the queue has it. */
export interface StoredMember extends Omit<Member, "inputs"> {
  inputs: readonly LocalInputRef[];
}

/** Reads what an engine can't; at once where there is nothing to read. What can't be read is its member's outcome. */
export type ReadStoredInputs = (members: StoredMember[]) => Member[] | Promise<(Member | MemberOutcome)[]>;

export function createStoredInputReader(redis: Redis): ReadStoredInputs {
  return (members) => {
    const keys = members.flatMap(({ inputs }) =>
      inputs.flatMap((ref) => ("redis" in ref ? [ref.redis] : [])),
    );
    return keys.length === 0 ? (members as Member[]) : read(redis, members, keys);
  };
}

async function read(
  redis: Redis,
  members: StoredMember[],
  keys: readonly string[],
): Promise<(Member | MemberOutcome)[]> {
  const startedAt = performance.now();
  const values = await redis.mgetBuffer([...keys]);
  const byKey = new Map(keys.map((key, index) => [key, values[index]]));
  return members.map((member) => {
    const inputs: MemberInput[] = [];
    for (const ref of member.inputs) {
      if (!("redis" in ref)) {
        inputs.push(ref);
        continue;
      }
      const { redis: key, ...label } = ref;
      const bytes = byKey.get(key);
      if (!bytes) {
        const timings = { ...noTimings(), read_ms: performance.now() - startedAt };
        return { key: member.key, error: toWire(lostInput()), timings, batch_size: 0 };
      }
      inputs.push({ ...label, bytes });
    }
    return { ...member, inputs };
  });
}
