import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 3,
    // Conditions are waited for, however busy the machine is.
    expect: { poll: { timeout: 20_000 } },
    testTimeout: 60_000,
    hookTimeout: 120_000,
    setupFiles: ["test/support/leaveNothingBehind.ts"],
    projects: [
      // No process, no Redis, no HTTP server: seconds.
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          // For tests that import onnxruntime themselves.
          env: { ORT_DISABLE_TELEMETRY: "1" },
        },
      },
      {
        extends: true,
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          // These start what is shipped, so it is built first.
          globalSetup: ["test/support/build.ts"],
        },
      },
    ],
  },
});
