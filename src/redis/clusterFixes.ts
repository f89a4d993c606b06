/**
 * What ioredis gets wrong of a cluster, put right on a connection and on those that BullMQ makes after it. Seen with
 * ioredis 6.0.0 under `npm run soak`; test/integration/redis/cluster.test.ts shows each.
 */
import type { Cluster } from "ioredis";

/** How long a cluster that is left may take for its end. */
const END_LIMIT_MS = 2000;

/** Of a pipeline, where its commands go: `redis` once the first of them was taken. */
interface Destination {
  redis?: object;
  isRefused?: boolean;
}

/** As much of ioredis's inside as is needed. */
interface Inside {
  sendCommand(command: Command, stream?: unknown, destination?: Destination): Promise<unknown>;
  connect(): Promise<void>;
  disconnect(reconnect?: boolean): void;
  duplicate(...given: unknown[]): Cluster;
  handleCloseEvent(): void;
  manuallyClosing: boolean;
}

interface Command {
  promise: Promise<unknown>;
  reject(error: Error): void;
}

export function fixCluster(cluster: Cluster): Cluster {
  const inside = cluster as unknown as Inside;
  keepPipelinesWhole(inside);
  keepConnecting(cluster, inside);
  endInAnyCase(cluster, inside);
  const duplicate = inside.duplicate.bind(cluster);
  inside.duplicate = (...given) => fixCluster(duplicate(...given));
  return cluster;
}

/**
 * While nodes come and go, ioredis looks for a node anew for each command of a pipeline until one is taken. Those before
 * are refused then, the others wait in the node's queue of replies and are never written, and every later command of that
 * connection is given the reply of another. So where the first is refused, all are; ioredis tries them again together.
 */
function keepPipelinesWhole(cluster: Inside): void {
  const send = cluster.sendCommand.bind(cluster);
  cluster.sendCommand = (command, stream, destination) => {
    if (destination?.isRefused) {
      command.reject(new Error("Connection is closed."));
      return command.promise;
    }
    const reply = send(command, stream, destination);
    if (destination && !destination.redis) destination.isRefused = true;
    return reply;
  };
}

/**
 * BullMQ disconnects a cluster to interrupt what blocks on it, connects it again and waits for that. But to ioredis, a
 * connect() behind a disconnect() is the only try, and one that finds a cluster which isn't ready yet is never answered.
 */
function keepConnecting(cluster: Cluster, inside: Inside): void {
  const connect = inside.connect.bind(cluster);
  let connecting: Promise<void> | undefined;
  inside.connect = async () => {
    if (cluster.status === "ready") return;
    inside.manuallyClosing = false;
    connect().catch(() => {});
    connecting ??= untilReady(cluster).finally(() => (connecting = undefined));
    await connecting;
  };
}

/** @throws where it is disconnected before */
function untilReady(cluster: Cluster): Promise<void> {
  return new Promise((resolve, reject) => {
    const onReady = () => {
      cluster.off("end", onEnd);
      resolve();
    };
    const onEnd = () => {
      cluster.off("ready", onReady);
      reject(new Error("Connection is closed."));
    };
    cluster.once("ready", onReady);
    cluster.once("end", onEnd);
  });
}

/** One that has no node at the moment tells no end, and whoever closes a worker would wait for it for ever. */
function endInAnyCase(cluster: Cluster, inside: Inside): void {
  const disconnect = inside.disconnect.bind(cluster);
  inside.disconnect = (reconnect) => {
    const hasNodes = cluster.nodes().length > 0;
    disconnect(reconnect);
    const end = () => {
      if (cluster.status === "disconnecting") inside.handleCloseEvent();
    };
    if (!hasNodes) return end();
    if (reconnect) return;
    const limit = setTimeout(end, END_LIMIT_MS);
    cluster.once("end", () => clearTimeout(limit));
  };
}
