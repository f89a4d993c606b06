import { BaseModelLoader } from "infermill";
export class NoopModelLoader extends BaseModelLoader {
  override async predictRequests(requests) {
    const ms = Number(process.env.NOOP_MS ?? 0);
    if (ms > 0) await new Promise((r) => setTimeout(r, ms * requests.length));
    return requests.map(() => ({ Fs: [], Mtp: [], Obase_64: [], Img_url: [], Rc: "200", Rm: "Success" }));
  }
}
