/** `multipart/form-data`: files in any field, stored as they arrive, and the dictionary as JSON in `request`. */
import type { Readable } from "node:stream";
import { Busboy, type BusboyInstance } from "@fastify/busboy";
import type { Request } from "express";
import { BadInputError, InfermillError } from "../../errors.ts";
import type { StoredInput } from "../../queue/inputs.ts";
import type { InputLabel } from "../../queue/inputs.ts";
import type { StoreInput } from "../service.ts";
import { MalformedBodyError } from "../problems.ts";
import { limitBody, mediaType, parseJson, readText } from "./read.ts";

export interface ReceivedForm {
  /** Value of the field `request`; `{}` where it is missing. */
  dictionary: unknown;
  inputs: StoredInput[];
}

export async function receiveMultipart(
  req: Request,
  limits: { maxBytes: number; maxPictures: number },
  store: StoreInput,
  labelOf: (field: string, mediaType: string) => InputLabel,
): Promise<ReceivedForm> {
  const parser = openParser(req, limits.maxBytes);
  const body = limitBody(req, limits.maxBytes);
  const writes: Promise<StoredInput>[] = [];
  const files: Readable[] = [];
  let text: string | Promise<string> | undefined;

  const takeText = (value: string | Promise<string>) => {
    if (text !== undefined) throw new BadInputError("the field request must come once");
    text = value;
  };
  const takeFile = (field: string, file: Readable, type: string): Promise<unknown> => {
    if (field === "request") {
      const value = readText(file);
      takeText(value);
      return value;
    }
    const label = labelOf(field, mediaType(type));
    if (writes.length === limits.maxPictures) {
      throw new BadInputError(
        `at most ${limits.maxPictures} files may come (max_pictures_per_request), ${field} is one more`,
      );
    }
    const write = store(file, label);
    writes.push(write);
    return write;
  };

  try {
    await new Promise<void>((resolve, reject) => {
      const fail = (error: unknown) => reject(isExpected(error) ? error : malformedForm(error));
      parser.on("file", (field, file, _name, _encoding, type) => {
        files.push(file);
        // A file that is cut short fails whoever reads it; without a listener it would end the process.
        file.on("error", fail);
        try {
          takeFile(field, file, type).catch(fail);
        } catch (error) {
          fail(error);
        }
      });
      parser.on("field", (field, value) => {
        try {
          if (field !== "request") throw unknownField(field);
          takeText(value);
        } catch (error) {
          fail(error);
        }
      });
      parser.on("finish", resolve);
      parser.on("error", fail);
      body.on("error", fail);
      body.pipe(parser);
    });
    const inputs = await Promise.all(writes);
    return { dictionary: text === undefined ? {} : parseJson(await text, "the field request"), inputs };
  } catch (error) {
    body.unpipe(parser);
    // Else it would hold back the rest, which is read and dropped so that the client comes to read its answer.
    body.resume();
    for (const file of files) file.destroy(error as Error);
    await Promise.allSettled([...writes, text]);
    throw error;
  }
}

function openParser(req: Request, maxBytes: number): BusboyInstance {
  try {
    return new Busboy({
      headers: { ...req.headers, "content-type": req.headers["content-type"] ?? "" },
      limits: { fieldSize: maxBytes },
      isPartAFile: (field, _type, filename) => filename !== undefined || field === "image",
    });
  } catch (error) {
    throw malformedForm(error);
  }
}

/** Faults of the disk or of Redis are not the form's. */
function isExpected(error: unknown): boolean {
  return error instanceof InfermillError || (error instanceof Error && "syscall" in error);
}

function malformedForm(error: unknown): MalformedBodyError {
  return new MalformedBodyError(`the body is no multipart/form-data: ${(error as Error).message}`, {
    cause: error,
  });
}

function unknownField(field: string): BadInputError {
  return new BadInputError(
    `the form may have files and the field request (the dictionary as JSON), got the field ${JSON.stringify(field)} without a file`,
  );
}
