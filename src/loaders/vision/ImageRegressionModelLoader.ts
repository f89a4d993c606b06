/**
 * Models that put out numbers for a picture, or for several that play different roles: an age, a quality, the distance
 * of an anchor to a probe. Every number is a finding with its `Value`.
 */
import { z } from "zod";
import type { InputDescription, LoaderDescription, TensorDescription } from "../../core/description.ts";
import { inputsOf } from "../../core/request.ts";
import { BadInputError, ImplausibleOutputError } from "../../errors.ts";
import type { PredictionRequest } from "../../imil/dictionaries.ts";
import type { TensorValue } from "../../tensors/tensor.ts";
import {
  readPictureInput,
  toTensor,
  type Interpretation,
  type OutputRow,
  type PictureInput,
} from "../pictures/OnnxPictureModelLoader.ts";
import { write } from "../onnx/rows.ts";
import { createTensorWriter, type DecodedPicture } from "../pictures/picture.ts";
import { IMAGENET, type PreprocessingDefaults } from "./pictureOptions.ts";
import { VisionModelLoader, visionOptions } from "./VisionModelLoader.ts";

const options = z.object({
  ...visionOptions,
  max_values: z.int().min(1).default(64).meta({
    description: "Most numbers that an output may have for a picture; larger ones are refused at load.",
  }),
});

/** A picture together with those that play the other roles. */
interface DecodedRoles extends DecodedPicture {
  roles: Readonly<Record<string, DecodedPicture>>;
}

export class ImageRegressionModelLoader extends VisionModelLoader {
  static readonly options = options;
  readonly #options = options.parse(this.settings);
  /** The picture inputs beside the first, by name. */
  #roles: readonly PictureInput[] = [];
  #outputs: readonly string[] = [];

  protected override describeGraph(): ReturnType<VisionModelLoader["describeGraph"]> {
    const described = super.describeGraph();
    return {
      ...described,
      batch: (inputs) => {
        const batch = typeof described?.batch === "function" ? described.batch(inputs) : "auto";
        const others = inputs.filter(({ name }) => name !== this.pictureInput.name);
        this.#roles = others.map((input) => readPictureInput([input]));
        return batch;
      },
    };
  }

  protected override wantedOutputs(outputs: readonly TensorDescription[]): readonly string[] {
    this.readScales(outputs);
    this.needScales(outputs);
    const { max_values } = this.#options;
    const fitting = outputs.filter(({ shape }) => {
      const sizes = shape.slice(this.pictureInput.batch === "none" ? 0 : 1);
      return sizes.every((size) => typeof size === "number") && product(sizes) <= max_values;
    });
    if (fitting.length === 0) {
      const seen = outputs.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      throw new Error(
        `ImageRegressionModelLoader reads outputs of at most ${max_values} numbers (max_values), this model has ${seen}`,
      );
    }
    this.#outputs = fitting.map(({ name }) => name);
    return this.#outputs;
  }

  protected override preprocessingDefaults({ channels }: PictureInput): PreprocessingDefaults {
    return { ...(channels === 3 && IMAGENET), fit: "stretch" };
  }

  protected override picturesFor(request: PredictionRequest): readonly Buffer[] {
    const pictures = super.picturesFor(request);
    if (this.#roles.length === 0) return pictures;
    return pictures.length === 0 ? [] : [this.#pictureOf(this.pictureInput.name, 0, request, pictures)];
  }

  /** The picture that plays a role: the input of its name, or the one at its place where inputs have no such names. */
  #pictureOf(role: string, place: number, request: PredictionRequest, pictures: readonly Buffer[]): Buffer {
    const names = [this.pictureInput, ...this.#roles].map(({ name }) => name);
    const inputs = inputsOf(request);
    const hasNames = inputs.some(({ name }) => names.includes(name));
    const found = hasNames ? inputs.find(({ name }) => name === role)?.bytes : pictures[place];
    if (found && (hasNames || pictures.length === names.length)) return found;
    throw new BadInputError(
      `the model "${this.modelName}" needs ${names.length} pictures, named ${names.join(", ")} or in this order, ` +
        (hasNames ? `there is none named ${role}` : `the request has ${pictures.length}`),
    );
  }

  override async preprocessing(
    picture: Buffer,
    request: PredictionRequest,
  ): Promise<DecodedPicture | readonly DecodedPicture[]> {
    const decode = async (bytes: Buffer) => (await super.preprocessing(bytes, request)) as DecodedPicture;
    const decoded = await decode(picture);
    if (this.#roles.length === 0) return decoded;
    const pictures = super.picturesFor(request);
    const roles = await Promise.all(
      this.#roles.map(async ({ name }, index) => {
        const bytes = this.#pictureOf(name, index + 1, request, pictures);
        return [name, await decode(bytes)] as const;
      }),
    );
    const together: DecodedRoles = { ...decoded, roles: Object.fromEntries(roles) };
    return together;
  }

  protected override extraInput(
    { name }: TensorDescription,
    picture: DecodedPicture,
  ): TensorValue | undefined {
    const input = this.#roles.find((each) => each.name === name);
    const role = (picture as Partial<DecodedRoles>).roles?.[name];
    if (!input || !role) return undefined;
    const channels = input.channels === 1 ? "grey" : (this.prepared.format.channels ?? "rgb");
    const writer = createTensorWriter(
      { ...this.prepared.format, channels, layout: input.layout },
      input.type,
    );
    return write(toTensor(role, input, writer));
  }

  protected override interpret(row: OutputRow): Interpretation {
    const { class_names: labels } = this.settings;
    const findings = this.#outputs.flatMap((output) =>
      Array.from(row[output]!.data, (value, index) => {
        if (!Number.isFinite(value)) {
          throw new ImplausibleOutputError(
            `the output "${output}" has ${value} as number ${index}; look at scale, mean and std (what the model gets)`,
          );
        }
        const several = row[output]!.data.length > 1;
        const own = this.#outputs.length === 1 ? labels[index] : undefined;
        return { Cs: 1, Lb: own ?? (several ? `${output}[${index}]` : output), Dm: {}, Value: value };
      }),
    );
    return { findings };
  }

  override describe(): LoaderDescription {
    const described = super.describe();
    if (this.#roles.length === 0) return described;
    const inputs = [this.pictureInput, ...this.#roles].map(({ name }): InputDescription => ({
      name,
      mediaTypes: ["image/*"],
      required: true,
      multiple: false,
    }));
    return { ...described, inputs };
  }
}

function product(sizes: readonly (number | string)[]): number {
  return sizes.reduce<number>((count, size) => count * Number(size), 1);
}
