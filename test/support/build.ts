/** Builds dist before the first test, unless it was built a moment ago by somebody else. */
import { execFileSync } from "node:child_process";

export default function build(): void {
  execFileSync("npm", ["run", "build", "--silent"], { stdio: "inherit" });
}
