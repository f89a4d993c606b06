import { QueueKeys } from "bullmq";
import { describe, expect, test } from "vitest";
import { createNames, type Names } from "../../../src/queue/names.ts";

/** What the hash slots of keys depend on: all that is between the first braces. */
function hashTagsOf(keys: readonly string[]): Set<string | undefined> {
  return new Set(keys.map((key) => /^[^{]*\{([^}]+)\}/.exec(key)?.[1]));
}

/** Every key of a model, and those that belong to none. */
function keysOf(names: Names, model: string): string[] {
  const [queue, bulk] = [names.queuePrefix(model), names.bulkQueuePrefix(model)].map(
    (prefix) => new QueueKeys(prefix),
  );
  return [
    queue!.toKey(model, "prioritized"),
    queue!.toKey(model, "pred_1"),
    queue!.toKey(names.deliveryQueue, "delayed"),
    bulk!.toKey(model, "wait"),
    names.slots(model),
    names.input(model, "pred_1", 0),
    names.output(model, `${model}:pred_1`, "{mask}"),
    names.output(model, "bulk_1:7", "mask"),
    names.thumbnail(model, "pred_1"),
    names.statistics(model),
  ];
}

function commonKeysOf(names: Names): string[] {
  const queues = new QueueKeys(names.queuePrefix(undefined));
  return [
    queues.toKey("_bulk", "wait"),
    queues.toKey(names.deliveryQueue, "wait"),
    names.worker("w"),
    names.workers,
    names.coordinators,
    names.goneWebhooks,
    names.bulkRun("bulk_1"),
    names.bulkOwner("bulk_1"),
    names.bulkRuns,
  ];
}

describe("names of keys", () => {
  test("in a cluster all keys of a model lie in one hash slot, and models in different ones", () => {
    const names = createNames("infermill", true);
    expect(hashTagsOf(keysOf(names, "A"))).toEqual(new Set(["infermill:A"]));
    expect(hashTagsOf(keysOf(names, "B"))).toEqual(new Set(["infermill:B"]));
    expect(hashTagsOf(commonKeysOf(names))).toEqual(new Set(["infermill"]));
  });

  test("in a cluster each model has its webhook deliveries beside its queue, and bulk runs have theirs", () => {
    expect(createNames("infermill", true).deliveryOwners(["A", "B"])).toEqual([undefined, "A", "B"]);
    expect(createNames("infermill").deliveryOwners(["A", "B"])).toEqual([undefined]);
  });

  // An older version's predictions must be found after an upgrade, and KEDA and dashboards name some of these.
  test("on a single Redis they are what they always were", () => {
    const names = createNames("infermill");
    expect(keysOf(names, "A")).toEqual([
      "infermill:queue:A:prioritized",
      "infermill:queue:A:pred_1",
      "infermill:queue:_webhooks:delayed",
      "infermill:bulk-queue:A:wait",
      "infermill:slots:A",
      "infermill:input:pred_1:0",
      "infermill:output:A:pred_1:{mask}",
      "infermill:output:bulk_1:7:mask",
      "infermill:thumbnail:A:pred_1",
      "infermill:statistics:A",
    ]);
    expect(commonKeysOf(names)).toEqual([
      "infermill:queue:_bulk:wait",
      "infermill:queue:_webhooks:wait",
      "infermill:worker:w",
      "infermill:workers",
      "infermill:coordinators",
      "infermill:webhooks:gone",
      "infermill:bulk:bulk_1",
      "infermill:bulk-owner:bulk_1",
      "infermill:bulk-runs",
    ]);
  });
});
