/** IMIL's response dictionary and its findings, as the OpenAPI document describes them. */
import { z } from "zod";

export const findingSchema = z
  .looseObject({
    Cs: z.number().meta({ description: "Confidence, 0 to 1." }),
    Lb: z.string().meta({ description: "Label." }),
    Dm: z.unknown().meta({
      description:
        "Box as fractions of the picture: {X, Y, W, H} with X, Y the top-left corner; {} where there is none.",
      example: { X: 0.1, Y: 0.2, W: 0.3, H: 0.4 },
    }),
    Kp: z
      .record(z.string(), z.array(z.number()))
      .optional()
      .meta({ description: 'Key points by number from "1": [x, y, z, score], as fractions of the picture.' }),
    Info: z
      .string()
      .optional()
      .meta({ description: "For a request of several pictures: the index of the picture, from 0." }),
  })
  .meta({ id: "Finding" });

const echoed = z.unknown().optional().meta({ description: "As the request has it." });

export const responseSchema = z
  .looseObject({
    Tid: echoed,
    Did: echoed,
    Fid: echoed,
    Ts: echoed,
    Ts_ntp: echoed,
    Msg_ver: echoed,
    Inf_ver: echoed,
    Ad: echoed,
    Lfp: echoed,
    Ffp: echoed,
    Ltsize: echoed,
    I_fn: echoed,
    Prompt: echoed,
    Hp: echoed,
    Mtp: z
      .array(
        z.looseObject({
          Stime: z.string().optional(),
          Etime: z.string().optional(),
          Src: z.string().optional(),
        }),
      )
      .optional()
      .meta({
        description:
          "The request's message travel path and one more step: start and end in UTC (YYYY-MM-DD,hh:mm:ss.mmm AM|PM) and the model.",
      }),
    Fs: z.array(findingSchema).meta({ description: "What was found; [] where nothing was." }),
    Obase_64: z.array(z.string()).optional().meta({ description: "Output pictures as base64." }),
    Img_url: z.array(z.string()).optional(),
    Rc: z.string().meta({ description: 'Response code: "200", or the HTTP status of the error.' }),
    Rm: z.string().meta({ description: 'Response message: "Success", or what went wrong.' }),
  })
  .meta({
    id: "PredictionResponse",
    description: "The response dictionary: the request's keys echoed, and the findings.",
  });
