/**
 * Any ONNX model as it is: tensors in, tensors out, in the words of the Open Inference Protocol. Nothing but
 * `model_path` is needed.
 */
import type { LoaderDescription, TensorDescription } from "../../core/description.ts";
import type { RequestDictionary, ResponseDictionary } from "../../core/request.ts";
import { InvalidRequestError, type Fault } from "../../errors.ts";
import { datatypeOf } from "../../tensors/datatypes.ts";
import { RAW_TENSOR, readTensors, writeTensors } from "../../tensors/dialect.ts";
import { isElementType, type TensorValue, type Tensors } from "../../tensors/tensor.ts";
import { didYouMean } from "../../closest.ts";
import { onnxOptions, OnnxModelLoader } from "./OnnxModelLoader.ts";

export class OnnxTensorModelLoader extends OnnxModelLoader {
  static readonly options = onnxOptions;

  override async load(): Promise<void> {
    await super.load();
    const unknown = this.graph.inputs.find(({ type }) => !isElementType(type));
    if (unknown) {
      throw new Error(
        `models.${this.modelName}.model_path: the input "${unknown.name}" is of type ${unknown.type}, which can't be filled`,
      );
    }
  }

  /** The tensors of `inputs`, one for each input of the model. */
  override async preprocessing(request: RequestDictionary): Promise<Tensors> {
    const given = readTensors(request);
    const expected = this.graph.inputs;
    const faults: Fault[] = [];
    const tensors: Record<string, TensorValue> = {};
    const names = expected.map(({ name }) => name);
    for (const name of Object.keys(given).filter((candidate) => !names.includes(candidate)))
      faults.push({
        key: "inputs",
        problem: `must not have "${name}", the model takes ${names.join(", ")}${didYouMean(name, names)}`,
      });
    const sizes = new Map<string, number>();
    for (const input of expected) {
      const tensor = given[input.name];
      if (!tensor) {
        faults.push({ key: "inputs", problem: `must have ${this.#describe(input)}, which is missing` });
        continue;
      }
      const problem = this.#misfit(input, tensor, sizes);
      if (problem) faults.push({ key: `inputs (${input.name})`, problem });
      // Clients that know no scalars send a list of one.
      tensors[input.name] = this.#isScalar(input) ? { ...tensor, dims: [] } : tensor;
    }
    if (faults.length > 0) throw new InvalidRequestError(faults);
    return tensors;
  }

  /** All outputs, or those that the request's own `outputs` names. */
  override async postprocessing(outputs: Tensors, request: RequestDictionary): Promise<ResponseDictionary> {
    const asked = request["outputs"];
    if (!Array.isArray(asked) || asked.length === 0) return writeTensors(outputs);
    const names = asked.map((output: unknown) => (output as { name?: unknown } | null)?.name);
    const known = Object.keys(outputs);
    const unknown = names.findIndex((name) => typeof name !== "string" || !known.includes(name));
    if (unknown >= 0) {
      const got = JSON.stringify(names[unknown]) ?? "none";
      throw new InvalidRequestError([
        { key: `outputs[${unknown}].name`, problem: `must be one of ${known.join(", ")}, got ${got}` },
      ]);
    }
    return writeTensors(Object.fromEntries((names as string[]).map((name) => [name, outputs[name]!])));
  }

  #isScalar({ name, shape }: TensorDescription): boolean {
    return shape.length === 0 && !this.graph.file.unranked.has(name);
  }

  #describe({ name, type, shape }: TensorDescription): string {
    const dims = shape.map((dim) => (dim === "" ? "any" : dim));
    const form = this.graph.file.unranked.has(name) ? "of any shape" : `[${dims.join(", ")}]`;
    return `${name} ${isElementType(type) ? datatypeOf(type) : type} ${form}`;
  }

  /**
   * What is wrong with a tensor for an input.
   * @param sizes of the dimensions that have a name; the same name means the same size
   */
  #misfit(
    input: TensorDescription,
    { type, dims }: TensorValue,
    sizes: Map<string, number>,
  ): string | undefined {
    const expected = `must be ${this.#describe(input)}`;
    if (type !== input.type) return `${expected}, got ${datatypeOf(type)}`;
    if (this.graph.file.unranked.has(input.name)) return undefined;
    const got = `, got the shape [${dims.join(", ")}]`;
    if (this.#isScalar(input)) return dims.every((dim) => dim === 1) ? undefined : expected + got;
    if (dims.length !== input.shape.length) return expected + got;
    for (const [axis, dim] of input.shape.entries()) {
      const size = dims[axis]!;
      if (typeof dim === "string") {
        const known = sizes.get(dim);
        if (dim !== "" && known !== undefined && known !== size)
          return `${expected} with ${dim} = ${known}${got}`;
        sizes.set(dim, size);
      } else if (size !== dim && this.graph.plan.axes.get(input.name) !== axis) return expected + got;
    }
    return undefined;
  }

  override describe(): LoaderDescription {
    const { inputs, file } = this.graph;
    const { class_names: given } = this.settings;
    const described = super.describe();
    return {
      ...described,
      labels: given.length > 0 ? given : file.classLabels,
      takesTensors: true,
      requiredKeys: ["inputs"],
      inputs: inputs.map(({ name }) => ({
        name,
        mediaTypes: [RAW_TENSOR],
        required: false,
        multiple: false,
      })),
      facts: {
        ...described.facts,
        ...(file.producer && { producer: file.producer }),
        ...Object.fromEntries(Object.entries(file.metadata).map(([key, value]) => [key, shortened(value)])),
      },
    };
  }
}

const MAX_FACT = 200;

function shortened(text: string): string {
  return text.length > MAX_FACT ? `${text.slice(0, MAX_FACT)}…` : text;
}
