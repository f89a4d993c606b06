/** Many requests in one body: each is accepted or refused by itself, and the answer keeps their order. */
import type { Request, Response } from "express";
import { BadInputError, InfermillError, QueueFullError } from "../../errors.ts";
import { acceptPredictions, draftOf, descriptionOf, type Draft } from "../../api/service.ts";
import { pathParameter, type Api } from "../../api/api.ts";
import { parseJson } from "../../api/body/read.ts";
import { problemOf, sendError } from "../../api/problems.ts";
import { readDictionary } from "../../api/requestDictionary.ts";
import { clientIdOf, type NativeOptions } from "./submissionOptions.ts";

/**
 * @param entries lines of NDJSON (empty ones are skipped) or elements of an array
 * @param countedBy what tells a client where a fault is: its line from 1, or its index from 0
 */
export async function submitMany(
  api: Api,
  req: Request,
  res: Response,
  entries: readonly unknown[],
  options: NativeOptions,
  countedBy: "line" | "index",
): Promise<void> {
  const { config } = api;
  const model = pathParameter(req, "model");
  if (options.clientId !== undefined)
    throw new BadInputError("PUT takes one request, because its path names one prediction");
  const places = [...entries.keys()].filter(
    (index) => countedBy === "index" || String(entries[index]).trim() !== "",
  );
  if (places.length === 0) throw new BadInputError("the body must hold at least one request, got none");
  if (places.length > config.max_predictions_per_call) {
    throw new BadInputError(
      `the body must hold at most ${config.max_predictions_per_call} requests (max_predictions_per_call), got ${places.length}`,
    );
  }

  const drafts: (Draft | InfermillError)[] = [];
  for (const [index, place] of places.entries()) {
    drafts.push(await toDraft(entries[place], index, place).catch(onlyInfermillErrors));
  }
  const sound = drafts.filter((draft): draft is Draft => !(draft instanceof InfermillError));
  const accepted = sound.length > 0 ? await acceptPredictions(api, model, sound, options) : [];
  const outcomes = drafts.map((draft) => (draft instanceof InfermillError ? draft : accepted.shift()!));
  const predictions = outcomes.map((outcome, index) =>
    outcome instanceof InfermillError
      ? problemOf(outcome, { [countedBy]: placeOf(places[index]!) })
      : outcome,
  );
  const errors = outcomes.filter((outcome) => outcome instanceof InfermillError);
  if (errors.length < outcomes.length) {
    res.status(202).set("Retry-After", "1").json({ predictions });
    return;
  }
  const full = errors.find((error) => error instanceof QueueFullError);
  const error =
    full ??
    new BadInputError(`none of the ${outcomes.length} requests can be used; predictions says why for each`);
  sendError(res, error, { predictions });

  async function toDraft(entry: unknown, index: number, place: number): Promise<Draft> {
    const value = countedBy === "line" ? parseJson(String(entry), `line ${placeOf(place)}`) : entry;
    const parts = readDictionary(value, config, model, await descriptionOf(api, model));
    return draftOf(parts, clientIdOf(options, index));
  }

  function placeOf(place: number): number {
    return countedBy === "line" ? place + 1 : place;
  }
}

function onlyInfermillErrors(error: unknown): InfermillError {
  if (error instanceof InfermillError && error.status < 500) return error;
  throw error;
}
