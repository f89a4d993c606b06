/** Questions on a terminal. */
import { createInterface } from "node:readline/promises";
import { EXIT_INTERRUPTED } from "./exit.ts";

/** An empty answer is the default; one that doesn't match is asked for again. */
export type Question = (text: string, byDefault: string, pattern?: RegExp) => Promise<string>;

/** Runs `dialogue`; Ctrl-C and Ctrl-D end the process, since readline would leave the question open for ever. */
export async function ask<T>(dialogue: (question: Question) => Promise<T>): Promise<T> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const leave = () => {
    console.log();
    process.exit(EXIT_INTERRUPTED);
  };
  terminal.once("close", leave);
  try {
    return await dialogue(async (text, byDefault, pattern = /^/) => {
      for (;;) {
        const shown = byDefault === "" ? "" : ` [${byDefault}]`;
        const answer = (await terminal.question(`${text}${shown}: `)).trim() || byDefault;
        if (pattern.test(answer)) return answer;
      }
    });
  } finally {
    terminal.off("close", leave);
    terminal.close();
  }
}
