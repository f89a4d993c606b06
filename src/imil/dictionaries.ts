/**
 * The two dictionaries that travel between a client and a loader, with the key
 * names of the Infosys Model Inference Library (IMIL). Keys that are not listed
 * are kept and handed to the loader as they came.
 */

/** A box as fractions of the picture (0..1): top-left corner, width, height. */
export interface Box {
  X: number;
  Y: number;
  W: number;
  H: number;
}

/** The pixels of one thing. */
export interface Mask {
  /** COCO's compressed run lengths: `size` is height and width of the upright picture, `counts` as pycocotools reads it. */
  Rle: { size: [height: number, width: number]; counts: string };
  /** Outlines as `[x, y, x, y, …]`, fractions of the picture. */
  Poly: number[][];
}

/** A box at an angle. */
export interface RotatedBox {
  /** Radians from the picture's x axis to the box's width, clockwise. */
  Angle: number;
  /** The four corners `[x, y]` as fractions of the picture, clockwise from the one that is top left without the angle. */
  Corners: [x: number, y: number][];
}

/** One thing that a model found. */
export interface Finding {
  /** Confidence, 0..1. */
  Cs: number;
  /** Label. */
  Lb: string;
  /** Box as fractions of the upright picture; `{}` where there is none. */
  Dm: Box | Record<string, never>;
  /** Key points by number from "1": `[x, y, z, score]`, x and y as fractions of the picture. */
  Kp?: Record<string, number[]>;
  /** Mask: which pixels belong to it. */
  Msk?: Mask;
  /** Box at an angle; `Dm` is the upright box around it. */
  Rb?: RotatedBox;
  /** What a regression found. */
  Value?: number;
  /** What an embedding found. */
  Vector?: number[];
  Nobj?: string;
  Uid?: string;
  /** For a request of several pictures: the index (from 0) of the picture that this was found in. */
  Info?: string;
  Pid?: string;
  Np?: string;
  Tpc?: string;
  Bpc?: string;
  TaskType?: string;
}

/** One hop of a message: when it was worked on, and by whom. */
export interface MessageTravelStep {
  /** Start and end in UTC, `YYYY-MM-DD,hh:mm:ss.mmm AM|PM` (12-hour clock). */
  Stime: string;
  Etime: string;
  /** Who worked on it: the model's name for the entry that infermill appends. */
  Src: string;
}

/** What clients send where IMIL names a string. */
export type ImilText = string | number | null;

/** The prediction request dictionary. Every key is optional unless the loader needs it. */
export interface PredictionRequest {
  /** Tenant, device and frame id. */
  Tid?: ImilText;
  Did?: ImilText;
  Fid?: ImilText | (string | number)[];
  /** Findings of the previous frame. */
  Per?: unknown[] | string | null;
  /** Time of the frame, and by the network's clock. */
  Ts?: ImilText;
  Ts_ntp?: ImilText;
  Inf_ver?: ImilText;
  Msg_ver?: ImilText;
  /** For the client's own use: over HTTP the URL decides which model runs. `executeModel` goes by it. */
  Model?: ImilText;
  /** Additional data: a string or an object. */
  Ad?: unknown;
  /** First frame, lot size, last frame. */
  Ffp?: ImilText;
  Ltsize?: ImilText;
  Lfp?: ImilText;
  /** Message travel path. */
  Mtp?: Partial<MessageTravelStep>[] | null;
  /** The picture or pictures as base64. Loaders read the bytes with `picturesOf(request)` instead. */
  Base_64?: string | string[] | null;
  /** Lowest confidence (0..1) of a finding in the response: a number, or a number in a string. */
  C_threshold?: number | string | null;
  /** Name of the input file. */
  I_fn?: ImilText;
  /** Masks and replacement pictures as base64. */
  Msk_img?: unknown[] | string | null;
  Rep_img?: unknown[] | string | null;
  /** Text prompts, in practice a list of lists of which the first is used. */
  Prompt?: unknown[] | string | null;
  // Keys of IMIL's newer client; what they hold is between it and the loader.
  /** Regions of interest. */
  Roi_c?: unknown;
  /** Findings of an earlier model. */
  Fs?: unknown;
  /** Hyper-parameters. */
  Hp?: unknown;
  Text?: unknown;
  /** Explanations: version, who explains, where they are sent. */
  Xai_ver?: unknown;
  Xai_explainers?: unknown;
  Xai_url?: unknown;
  FeedId?: unknown;
  [key: string]: unknown;
}

/** The response dictionary. Keys of the request that identify it come back as they came. */
export interface PredictionResponse {
  Tid?: ImilText;
  Did?: ImilText;
  Fid?: ImilText | (string | number)[];
  Ts?: ImilText;
  Ts_ntp?: ImilText;
  Msg_ver?: ImilText;
  Inf_ver?: ImilText;
  Ad?: unknown;
  Lfp?: ImilText;
  Ffp?: ImilText;
  Ltsize?: ImilText;
  /** For IMIL's newer client, where the request has them. */
  I_fn?: ImilText;
  Prompt?: unknown[] | string | null;
  Hp?: unknown;
  /** The request's steps, and one more for this run. */
  Mtp: Partial<MessageTravelStep>[];
  /** What was found, in the order of the pictures; `[]` where nothing was. */
  Fs: Finding[];
  /** Output pictures as base64. */
  Obase_64: string[];
  Img_url: string[];
  /** Response code: "200", or the HTTP status of the error. */
  Rc: string;
  /** "Success", or what went wrong. */
  Rm: string;
  [key: string]: unknown;
}
