import { expect, test } from "vitest";
import { createSessions } from "../../../src/api/sessions.ts";

const [OLD, NEW] = ["the-old-key-0123456789", "the-new-key-0123456789"];
const DAY_MS = 86_400_000;

test("a session lasts for a day, and as long as its key", () => {
  let now = Date.UTC(2026, 10, 26);
  const clock = () => now;
  const sessions = createSessions([OLD, NEW], clock);
  const session = sessions.create(OLD);
  expect(session).not.toContain(OLD);
  expect(sessions.create(OLD)).not.toBe(session);
  expect(createSessions([NEW], clock).isValid(session)).toBe(false);
  expect(createSessions([OLD], clock).isValid(session)).toBe(true);
  now += DAY_MS;
  expect(sessions.isValid(session)).toBe(true);
  now += 1;
  expect(sessions.isValid(session)).toBe(false);
});

test("nothing else is one", () => {
  const sessions = createSessions([OLD]);
  const session = sessions.create(OLD);
  for (const forged of [undefined, "", "..", session.slice(0, -1), `${session}A`, session.toUpperCase()])
    expect([forged, sessions.isValid(forged)]).toEqual([forged, false]);
  expect(createSessions([]).isValid(session)).toBe(false);
});
