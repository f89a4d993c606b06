/** How many deliveries a receiver gets at a time. */
import { expect, test } from "vitest";
import { Receivers, type Visit } from "../src/webhooks/receivers.ts";

function visits(receivers: Receivers, host: string): Visit[] {
  const all: Visit[] = [];
  for (let visit = receivers.visit(host); visit; visit = receivers.visit(host)) all.push(visit);
  return all;
}

test("a receiver that answers gets more and more at a time, up to a limit", () => {
  const receivers = new Receivers();
  const first = visits(receivers, "good");
  expect(first).toHaveLength(8);
  for (let round = 0; round < 10; round++) for (const visit of visits(receivers, "good")) visit.leave(true);
  for (const visit of first) visit.leave(true);
  expect(visits(receivers, "good")).toHaveLength(64);
});

test("one that doesn't answer gets a single one, until it answers again; others don't notice", () => {
  const receivers = new Receivers();
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
  const receivers = new Receivers();
  const [first, second] = visits(receivers, "a");
  const woken: number[] = [];
  for (let index = 0; index < 12; index++) receivers.whenFree("a", () => woken.push(index));
  expect(woken).toEqual([]);
  first!.leave(undefined);
  expect(woken).toEqual([0]);
  second!.leave(true);
  expect(woken).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  receivers.whenFree("idle", () => woken.push(99));
  expect(woken.at(-1)).toBe(99);
});
