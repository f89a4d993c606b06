import { describe, expect, test, vi } from "vitest";
import { mayHaveRun } from "../../../src/redis/connections.ts";
import { connectionFaultOf, noteReadOnly, redisFaultOf } from "../../../src/redis/refusals.ts";

/** As ioredis throws what Redis replies. */
function reply(message: string): Error {
  return Object.assign(new Error(message), { name: "ReplyError" });
}

describe("what Redis refuses", () => {
  // Texts of Redis 6.2 (with "ERR Error running script") and 7.
  test.each([
    ["OOM command not allowed when used memory > 'maxmemory'.", "queue_storage_full", "maxmemory"],
    [
      "ERR Error running script (call to f_ab12): @user_script:93: @user_script: 93: -OOM command not allowed when used memory > 'maxmemory'.",
      "queue_storage_full",
      "maxmemory",
    ],
    ["READONLY You can't write against a read only replica.", "redis_refused", "read-only replica"],
    [
      "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
      "redis_refused",
      "read-only replica",
    ],
    [
      "ERR Error running script (call to f_ab12): @user_script:7: -READONLY You can't write against a read only replica.",
      "redis_refused",
      "read-only replica",
    ],
    ["MISCONF Errors writing to the AOF file: No space left on device", "redis_refused", "No space left"],
    ["LOADING Redis is loading the dataset in memory", "redis_refused", "still loading"],
    [
      "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
      "redis_refused",
      "lost its master",
    ],
    ["CLUSTERDOWN Hash slot not served", "redis_refused", "cluster is down"],
    ["NOREPLICAS Not enough good replicas to write.", "redis_refused", "min-replicas-to-write"],
    ["MOVED 3999 127.0.0.1:6381", "redis_refused", "node of a Redis Cluster"],
    ["CROSSSLOT Keys in request don't hash to the same slot", "redis_refused", "node of a Redis Cluster"],
    [
      "Too many Cluster redirections. Last error: ReplyError: TRYAGAIN Multiple keys request during rehashing of slot",
      "redis_refused",
      "moving the hash slot",
    ],
    ["NOPERM User app has no permissions to run the 'evalsha' command", "redis_refused", "ACL forbids"],
    [
      "WRONGPASS invalid username-password pair or user is disabled.",
      "redis_refused",
      "user name or password",
    ],
    [
      "ERR The user executing the script can't run this command or subcommand script: ab12, on @user_script:93.",
      "redis_refused",
      "ACL forbids",
    ],
    ["NOAUTH Authentication required.", "redis_refused", "wants a password"],
    ["ERR unknown command 'BZPOPMIN', with args beginning with: 'x'", "redis_refused", "6.2 or newer"],
    ["ERR max number of clients reached", "redis_refused", "maxclients"],
  ])("%s", (text, code, reason) => {
    expect(redisFaultOf(reply(text))).toMatchObject({ code, status: 503 });
    expect(redisFaultOf(reply(text))!.message).toContain(reason);
  });

  test("a discarded transaction has the reason of the command in it", () => {
    const discarded = Object.assign(reply("EXECABORT Transaction discarded because of previous errors."), {
      previousErrors: [reply("OOM command not allowed when used memory > 'maxmemory'.")],
    });
    expect(redisFaultOf(discarded)).toMatchObject({ code: "queue_storage_full" });
  });

  test("what can't be sent while the master is looked for is refused for that reason, and later for want of a connection", () => {
    const unsent = new Error("Stream isn't writeable and enableOfflineQueue options is false");
    expect(redisFaultOf(unsent)).toMatchObject({ code: "redis_unavailable" });
    vi.useFakeTimers();
    try {
      noteReadOnly();
      expect(redisFaultOf(unsent)).toMatchObject({
        code: "redis_refused",
        message: expect.stringContaining("read-only replica"),
      });
      // This one may have been sent, and run.
      expect(redisFaultOf(new Error("Connection is closed."))).toMatchObject({ code: "redis_unavailable" });
      vi.advanceTimersByTime(3000);
      expect(redisFaultOf(unsent)).toMatchObject({ code: "redis_unavailable" });
    } finally {
      vi.useRealTimers();
    }
  });

  test("a command that was sent from node to node in vain is none that Redis refuses", () => {
    for (const last of ["Error: Connection is closed.", "ReplyError: MOVED 3999 127.0.0.1:6381"]) {
      const fault = redisFaultOf(new Error(`Too many Cluster redirections. Last error: ${last}`));
      expect(fault).toMatchObject({ code: "redis_unavailable", status: 503 });
      expect(fault!.message).toContain("a node of the Redis Cluster can't be reached");
      // Any of the nodes may have run it.
      expect(mayHaveRun(fault!)).toBe(true);
    }
    const unsent = new Error("Cluster isn't ready and enableOfflineQueue options is false");
    expect(redisFaultOf(unsent)).toMatchObject({ code: "redis_unavailable" });
    expect(mayHaveRun(redisFaultOf(unsent)!)).toBe(false);
  });

  test.each([
    ["WRONGPASS invalid username-password pair or user is disabled.", "user name and password"],
    [
      "All sentinels are unreachable. Retrying from scratch after 10ms. Last error: WRONGPASS invalid username-password pair",
      "sentinel_password",
    ],
    ["ERR This instance has cluster support disabled", "name it as redis://"],
    ["ERR unknown command 'CLUSTER', with args beginning with: 'SLOTS'", "no node of a Redis Cluster"],
    ["NOPERM User app has no permissions to run the 'cluster|slots' command", "+cluster"],
    ["self-signed certificate in certificate chain", "redis_tls.ca"],
    ["unable to get local issuer certificate", "redis_tls.ca"],
    [
      "Hostname/IP does not match certificate's altnames: Host: a. is not in the cert's altnames: DNS:b",
      "redis_tls.servername",
    ],
    ["certificate has expired", "renew"],
    [
      "C0:error:0A00045C:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:ssl/record/rec_layer_s3.c:1605:SSL alert number 116",
      "redis_tls.cert",
    ],
    ["C0:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:ssl.c:1:", "redis://"],
  ])("%s can't be waited away, and it is said what to change", (text, advice) => {
    expect(connectionFaultOf(new Error(text))).toContain(advice);
    expect(connectionFaultOf(new Error("connect ECONNREFUSED 127.0.0.1:6379"))).toBeUndefined();
  });

  test("a lost connection is no refusal, and what is not of Redis is neither", () => {
    expect(redisFaultOf(new Error("Connection is closed."))).toMatchObject({ code: "redis_unavailable" });
    expect(redisFaultOf(new Error("the loader's LOADING of the model failed"))).toBeUndefined();
    expect(redisFaultOf(reply("ERR value is not an integer or out of range"))).toBeUndefined();
    expect(redisFaultOf(new TypeError("x is not a function"))).toBeUndefined();
  });
});
