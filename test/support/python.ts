/** Python for tests: whether there is one, and the virtual environment with packages that `.ci/run` makes. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Interpreter of the machine, or undefined where there is none that is new enough. */
export const python = findPython();
export const whyNoPython = python === undefined && "no Python 3.9 or later on the PATH";

/** Interpreter with numpy, Pillow, onnxruntime, scikit-learn, Schemathesis and clients. `scripts/makePythonVenv.sh` makes it. */
const venv = fileURLToPath(new URL("../../node_modules/.cache/infermill-python", import.meta.url));
export const pythonWithPackages = existsSync(`${venv}/ready`) ? venv : undefined;
export const whyNoPackages =
  pythonWithPackages === undefined && "no Python packages; scripts/makePythonVenv.sh installs them";

function findPython(): string | undefined {
  try {
    const code = "import sys; print(sys.executable); sys.exit(sys.version_info < (3, 9))";
    return execFileSync("python3", ["-c", code], { encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return undefined;
  }
}

/** Whether a package can be imported from the environment with packages. */
export function hasPackage(name: string): boolean {
  if (pythonWithPackages === undefined) return false;
  try {
    execFileSync(`${pythonWithPackages}/bin/python`, [
      "-c",
      `import importlib.util as u, sys; sys.exit(u.find_spec("${name}") is None)`,
    ]);
    return true;
  } catch {
    return false;
  }
}
