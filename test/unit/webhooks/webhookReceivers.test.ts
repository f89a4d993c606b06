/** How many deliveries a receiver gets at a time. */
import { beforeEach, expect, test } from "vitest";
import { Receivers, type Visit } from "../../../src/webhooks/receivers.ts";

const CAPACITY = 2000;

const woken: string[] = [];
beforeEach(() => void woken.splice(0));

function openReceivers(): Receivers {
  return new Receivers(CAPACITY, (delivery) => woken.push(delivery));
}

function visits(receivers: Receivers, host: string): Visit[] {
  const all: Visit[] = [];
  for (;;) {
    const visit = receivers.visit(host, `msg_visit_${all.length}`);
    if (!visit) return all;
    all.push(visit);
  }
}

const later = () => Date.now() + 60_000;

test("a receiver that answers gets more and more at a time, up to a limit", () => {
  const receivers = openReceivers();
  const first = visits(receivers, "good");
  expect(first).toHaveLength(8);
  for (let round = 0; round < 10; round++) for (const visit of visits(receivers, "good")) visit.leave(true);
  for (const visit of first) visit.leave(true);
  expect(visits(receivers, "good")).toHaveLength(64);
});

test("one that doesn't answer gets a single one, until it answers again; others don't notice", () => {
  const receivers = openReceivers();
  for (const visit of visits(receivers, "dead")) visit.leave(false);
  const [only, ...more] = visits(receivers, "dead");
  expect(more).toEqual([]);
  expect(visits(receivers, "good")).toHaveLength(8);
  only!.leave(undefined);
  const [again, ...none] = visits(receivers, "dead");
  expect(none).toEqual([]);
  again!.leave(true);
  expect(visits(receivers, "dead")).toHaveLength(2);
});

test("who waits is woken in order, one for each that leaves, and all that a larger limit lets in", () => {
  const receivers = openReceivers();
  const [first, second] = visits(receivers, "a");
  const ids = Array.from({ length: 12 }, (_, index) => `msg_${index}`);
  for (const id of ids) receivers.whenFree("a", id, later());
  expect(woken).toEqual([]);
  first!.leave(undefined);
  expect(woken).toEqual(ids.slice(0, 1));
  second!.leave(true);
  expect(woken).toEqual(ids.slice(0, 10));
  receivers.whenFree("idle", "msg_idle", later());
  expect(woken.at(-1)).toBe("msg_idle");
});

test("a delivery that comes for room again waits once, in its old place, and no longer once it has found room", () => {
  const receivers = openReceivers();
  const [first, second, third] = visits(receivers, "a");
  for (const id of ["msg_1", "msg_2", "msg_3", "msg_1"]) receivers.whenFree("a", id, later());
  first!.leave(undefined);
  expect(woken).toEqual(["msg_1"]);
  expect(receivers.visit("a", "msg_2")).toBeDefined();
  second!.leave(undefined);
  third!.leave(undefined);
  expect(woken).toEqual(["msg_1", "msg_3"]);
});

test("a delivery that has woken by itself is not woken, and takes nobody's turn", () => {
  const receivers = openReceivers();
  const [first] = visits(receivers, "a");
  receivers.whenFree("a", "msg_elsewhere", Date.now());
  receivers.whenFree("a", "msg_here", later());
  first!.leave(undefined);
  expect(woken).toEqual(["msg_here"]);
});

test("forty slow receivers with all that they may have leave room for forty others", () => {
  const receivers = openReceivers();
  let inFlight = 0;
  for (let index = 0; index < 40; index++) {
    const slow = `slow ${index}`;
    for (let round = 0; round < 5; round++) for (const visit of visits(receivers, slow)) visit.leave(true);
    inFlight += visits(receivers, slow).length;
  }
  for (let index = 0; index < 40; index++) inFlight += visits(receivers, `other ${index}`).length;
  expect(inFlight).toBeLessThan(CAPACITY);
});
