import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Tests that start processes run what is shipped, so it is built first.
    globalSetup: ["test/support/build.ts"],
    pool: "forks",
    maxWorkers: 2,
    // Conditions are waited for, however busy the machine is.
    expect: { poll: { timeout: 20_000 } },
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
