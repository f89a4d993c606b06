/** A loader that answers at once: with its request, with the size of its picture, or with 16,000 floats. */
import { attachOutputs, BaseModelLoader, picturesOf, type Outcome, type PredictionRequest } from "infermill";

const FLOATS = new Float32Array(16_000);

export class EchoModelLoader extends BaseModelLoader {
  override async predictRequests(requests: readonly PredictionRequest[]): Promise<Outcome[]> {
    return requests.map((request) => {
      if (request["Floats"])
        return attachOutputs({}, [
          { name: "floats", mediaType: "application/octet-stream", bytes: new Uint8Array(FLOATS.buffer) },
        ]);
      const pictures = picturesOf(request);
      return pictures.length > 0 ? { Bytes: pictures[0]!.length } : { ...request };
    });
  }
}
