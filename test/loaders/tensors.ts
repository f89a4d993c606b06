/** Loaders that speak tensors, texts and dictionaries, for the tests of the protocols. */
import {
  attachOutputs,
  BadInputError,
  BaseModelLoader,
  inputsOf,
  readTensors,
  writeTensors,
  type Outcome,
  type RequestDictionary,
  type TensorValue,
} from "infermill";

type Floats = TensorValue & { type: "float32"; data: Float32Array };

/** `y` is twice `x` plus one; `sum` the sum of each row. A negative `x` is refused. */
export class AffineModelLoader extends BaseModelLoader {
  override async predictRequests(requests: readonly RequestDictionary[]): Promise<Outcome[]> {
    return requests.map((request) => {
      try {
        return this.answer(request);
      } catch (error) {
        return error as Error;
      }
    });
  }

  private answer(request: RequestDictionary): Outcome {
    const { x } = readTensors(request) as { x: Floats };
    if (!x || x.type !== "float32") throw new BadInputError("inputs must have x, FP32 [batch, 3]");
    if (x.data.some((value) => value < 0)) throw new BadInputError("x must not be negative");
    const [rows = 0, size = 1] = x.dims;
    const y: Floats = { type: "float32", dims: x.dims, data: x.data.map((value) => 2 * value + 1) };
    const sums = Float32Array.from({ length: rows }, (_, row) =>
      x.data.slice(row * size, (row + 1) * size).reduce((sum, value) => sum + value, 0),
    );
    return writeTensors({ y, sum: { type: "float32", dims: [rows], data: sums } });
  }

  override describe() {
    return {
      labels: ["red", "green", "blue"],
      picture: "none" as const,
      inputs: [],
      takesTensors: true,
      tensors: {
        inputs: [{ name: "x", type: "float32", shape: ["batch", 3] }],
        outputs: [
          { name: "y", type: "float32", shape: ["batch", 3] },
          { name: "sum", type: "float32", shape: ["batch"] },
        ],
      },
    };
  }
}

/** Answers the tensors that it gets, whatever they are. */
export class EchoTensorsModelLoader extends BaseModelLoader {
  override async predictRequest(request: RequestDictionary) {
    return writeTensors(readTensors(request));
  }

  override describe() {
    return { labels: [], picture: "none" as const, inputs: [], takesTensors: true };
  }
}

/** Vectors of four numbers: length, first and last character, and how many texts came with it. */
export class TextLengthModelLoader extends BaseModelLoader {
  override async predictRequest(request: RequestDictionary) {
    const texts = [request["Text"]].flat() as string[];
    const rows = texts.flatMap((text) => [
      text.length,
      text.charCodeAt(0),
      text.charCodeAt(text.length - 1),
      texts.length,
    ]);
    const embedding = { type: "float32" as const, dims: [texts.length, 4], data: Float32Array.from(rows) };
    const words = texts.reduce((sum, text) => sum + text.split(" ").length, 0);
    return writeTensors({ embedding }, { usage: { prompt_tokens: words } });
  }

  override describe() {
    return {
      labels: [],
      picture: "none" as const,
      inputs: [],
      requiredKeys: ["Text"],
      embeds: "text" as const,
    };
  }
}

/** Answers the dictionary that it gets, and a mask of as many bytes as each input has. */
export class DictionaryModelLoader extends BaseModelLoader {
  override async predictRequest(request: RequestDictionary) {
    const { Base_64: _pictures, ...rest } = request;
    if (request["Fid"] === "bad") throw new BadInputError("Fid must not be bad");
    const inputs = inputsOf(request);
    const answer = {
      ...rest,
      seen: inputs.map(({ name, mediaType, bytes }) => [name, mediaType, bytes.length]),
    };
    const [first] = inputs;
    if (!first) return answer;
    return attachOutputs(answer, [
      { name: "mask", mediaType: "image/png", bytes: new Uint8Array(first.bytes.length).fill(255) },
    ]);
  }

  override describe() {
    return { labels: [], picture: "none" as const };
  }
}

/** The same, of a model that takes two sounds. */
export class SoundsModelLoader extends DictionaryModelLoader {
  override describe() {
    const input = { mediaTypes: ["audio/wav"], required: true, multiple: false };
    return {
      labels: [],
      picture: "none" as const,
      inputs: [
        { name: "left", ...input },
        { name: "right", ...input },
      ],
    };
  }
}
