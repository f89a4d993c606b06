/** The paths of the api under which things are found. */

export function modelLinks(model: string) {
  const self = `/v1/models/${encodeURIComponent(model)}`;
  return { self, predictions: `${self}/predictions` };
}

export function predictionLinks(model: string, id: string) {
  const self = `${modelLinks(model).predictions}/${encodeURIComponent(id)}`;
  return {
    self,
    cancel: self,
    events: `${self}/events`,
    retry: `${self}/retry`,
    deliveries: `${self}/deliveries`,
  };
}

export function thumbnailLink(model: string, id: string): string {
  return `${predictionLinks(model, id).self}/thumbnail`;
}

export function outputLink(model: string, id: string, name: string): string {
  return `${predictionLinks(model, id).self}/outputs/${encodeURIComponent(name)}`;
}

export function deliveryLinks(id: string) {
  const self = `/v1/webhooks/deliveries/${encodeURIComponent(id)}`;
  return { self, replay: `${self}/replay` };
}

export function bulkRunLinks(run: string) {
  const self = `/v1/bulk/${encodeURIComponent(run)}`;
  return {
    self,
    results: `${self}/results`,
    skipped: `${self}/skipped`,
    events: `${self}/events`,
    cancel: self,
    summary: `${self}/summary`,
    entries: `${self}/entries`,
    report: `${self}/report`,
  };
}

/** @param at where the entry's line begins in the results, so that it need not be searched for */
export function bulkEntryLinks(run: string, index: number, at: number) {
  const self = `${bulkRunLinks(run).self}/entries/${index}`;
  return { thumbnail: `${self}/thumbnail?at=${at}`, picture: `${self}/picture?at=${at}` };
}

/** @param mediaType is asked for again when the output is read */
export function bulkOutputLink(run: string, index: string, name: string, mediaType: string): string {
  return `${bulkRunLinks(run).self}/outputs/${index}/${encodeURIComponent(name)}?type=${encodeURIComponent(mediaType)}`;
}
