/** What the api answers of models that find things: their responses are IMIL's dictionaries. */
import type * as bulk from "../../src/core/bulkRun.ts";
import type { PredictionResponse } from "../../src/imil/dictionaries.ts";
import type * as jobs from "../../src/core/prediction.ts";

export type Prediction = jobs.Prediction<PredictionResponse>;
export type BulkResult = bulk.BulkResult<PredictionResponse>;
