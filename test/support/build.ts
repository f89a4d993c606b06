/** Builds dist before the first test that starts it; a build that fails ends the test run. */
import { execFileSync } from "node:child_process";

export default function build(): void {
  try {
    execFileSync("npm", ["run", "build", "--silent"], { stdio: "pipe" });
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: Buffer; stderr?: Buffer };
    throw new Error(`npm run build failed:\n${String(stdout)}${String(stderr)}`, { cause: error });
  }
}
