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

/** The prediction request dictionary. Every key is optional unless the loader needs it. */
export interface PredictionRequest {
  Tid?: string;
  Did?: string;
  Fid?: string;
  Per?: unknown[] | null;
  Ts?: string;
  Ts_ntp?: string;
  Inf_ver?: string;
  Msg_ver?: string;
  Model?: string;
  Ad?: unknown;
  Ffp?: string;
  Ltsize?: string;
  Lfp?: string;
  Mtp?: MessageTravelStep[] | null;
  /** The picture or pictures as base64. Loaders read the bytes with `picturesOf(request)` instead. */
  Base_64?: string | string[];
  /** Lowest confidence (0..1) of a finding in the response: a number, or a number in a string. */
  C_threshold?: number | string;
  I_fn?: string;
  Msk_img?: string[] | null;
  Rep_img?: string[] | null;
  /** Text prompts, in practice a list of lists of which the first is used. */
  Prompt?: unknown[] | null;
  [key: string]: unknown;
}

/** The response dictionary. */
export interface PredictionResponse {
  Tid?: string;
  Did?: string;
  Fid?: string;
  Ts?: string;
  Ts_ntp?: string;
  Msg_ver?: string;
  Inf_ver?: string;
  Ad?: unknown;
  Lfp?: string;
  Ffp?: string;
  Ltsize?: string;
  Mtp: MessageTravelStep[];
  /** What was found, in the order of the pictures; `[]` where nothing was. */
  Fs: Finding[];
  /** Output pictures as base64. */
  Obase_64: string[];
  Img_url: string[];
  /** Response code: "200", or the code of the error. */
  Rc: string;
  /** "Success", or what went wrong. */
  Rm: string;
  [key: string]: unknown;
}
