/** Builds dist before the first test. */
import { execFileSync } from "node:child_process";

export default function build(): void {
  try {
    execFileSync("npm", ["run", "build", "--silent"], { stdio: "pipe" });
  } catch (error) {
    console.error(String((error as { stdout?: Buffer }).stdout));
  }
}
