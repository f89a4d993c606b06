/** The options of the scripts that people call by `npm run`: what is wrong is a sentence, and `--help` lists them. */
import { Command, InvalidArgumentError, Option } from "commander";

/** The command line of a script: its caller adds the options, and reads them. */
export function describeScript(name: string, summary: string): Command {
  return new Command(`npm run ${name} --`)
    .description(summary)
    .allowExcessArguments(false)
    .showHelpAfterError();
}

/** An option with a number above 0. */
export function number(name: string, help: string, preset?: number): Option {
  return new Option(`--${name} <n>`, help).default(preset).argParser(toNumber);
}

/** An option with a list of numbers above 0. */
export function numbers(name: string, help: string, preset: number[]): Option {
  return new Option(`--${name} <n,n>`, help)
    .default(preset, preset.join(","))
    .argParser((text) => text.split(",").map(toNumber));
}

/** Which Redis a script starts. */
export function redisKind(preset: "single" | "cluster"): Option {
  return new Option("--redis <kind>", "which Redis to start").choices(["single", "cluster"]).default(preset);
}

function toNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !(value > 0 && value < Infinity))
    throw new InvalidArgumentError("It must be a number above 0.");
  return value;
}
