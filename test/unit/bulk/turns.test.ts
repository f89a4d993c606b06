import { expect, test } from "vitest";
import { Turns } from "../../../src/bulk/turns.ts";

const never = new AbortController().signal;

test("as many as the limit have their turn at once, the others in the order of coming, and other keys don't wait", async () => {
  const turns = new Turns(2);
  const begun: string[] = [];
  const take = async (name: string, key = "a") => {
    const turn = await turns.take(key, never);
    begun.push(name);
    return turn!;
  };
  const first = await take("first");
  await take("second");
  const third = take("third");
  void take("fourth");
  await take("of b", "b");
  expect(begun).toEqual(["first", "second", "of b"]);
  first.end();
  first.end();
  await third;
  await Promise.resolve();
  expect(begun).toEqual(["first", "second", "of b", "third"]);
});

test("who gives up waiting has no turn, and takes none from the next", async () => {
  const turns = new Turns(1);
  const first = (await turns.take("a", never))!;
  const leaving = new AbortController();
  const given = turns.take("a", leaving.signal);
  const next = turns.take("a", never);
  leaving.abort();
  expect(await given).toBeUndefined();
  expect(await turns.take("a", leaving.signal)).toBeUndefined();
  first.end();
  expect(await next).toBeDefined();
});
