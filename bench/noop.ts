/** A loader that does nothing, for the cost of everything around a loader. */
import { BaseModelLoader, type Outcome, type PredictionRequest } from "infermill";

export class NoopModelLoader extends BaseModelLoader {
  override async predictRequests(requests: readonly PredictionRequest[]): Promise<Outcome[]> {
    return requests.map(() => ({ Fs: [], Mtp: [], Obase_64: [], Img_url: [], Rc: "200", Rm: "Success" }));
  }
}
