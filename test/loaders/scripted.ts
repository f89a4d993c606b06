/**
 * A loader that does what each request tells it to, for the tests of batches and faults:
 * `Do` is "throw", "refuse", "crash", "hang", "retry once", "wrong count", "no dictionary" or "no JSON"; `Ms` is how long its batch takes.
 */
import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  BadInputError,
  BaseModelLoader,
  RetryableError,
  type Outcome,
  type PredictionRequest,
} from "infermill";

export class ScriptedModelLoader extends BaseModelLoader {
  override async predictRequests(requests: readonly PredictionRequest[]): Promise<Outcome[]> {
    const journal = this.settings["journal"] as string | undefined;
    if (journal) appendFileSync(journal, `${requests.map(({ Fid }) => Fid).join(" ")}\n`);
    if (requests.some(({ Do }) => Do === "crash")) process.kill(process.pid, "SIGKILL");
    // Blocks the process for good, as a stuck native call does.
    if (requests.some(({ Do }) => Do === "hang")) for (;;);
    if (requests.some(({ Do }) => Do === "throw")) throw new Error("told to throw");
    await new Promise((resolve) =>
      setTimeout(resolve, Math.max(...requests.map(({ Ms }) => Number(Ms ?? 0)))),
    );
    if (requests.some(({ Do }) => Do === "wrong count")) return [];
    return requests.map((request) => this.answer(request));
  }

  private answer(request: PredictionRequest): Outcome {
    if (request["Do"] === "refuse") return new BadInputError("told to refuse");
    if (request["Do"] === "no dictionary") return 42 as unknown as Outcome;
    if (request["Do"] === "no JSON") return { ...request, Fs: [{ Cs: 1n }] };
    if (request["Do"] === "retry once") {
      const mark = join(this.settings["folder"] as string, `tried-${request.Fid}`);
      if (!existsSync(mark)) {
        writeFileSync(mark, "");
        return new RetryableError("told to fail once");
      }
    }
    return {
      ...request,
      Fs: [{ Cs: 1, Lb: String(request.Fid), Dm: {} }],
      Mtp: [],
      Obase_64: [],
      Img_url: [],
      Rc: "200",
      Rm: "Success",
    };
  }
}
