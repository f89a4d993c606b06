/** What is sent to each server: the same picture or row of numbers in the form that the server takes. */
export interface Body {
  bytes: Buffer;
  headers: Record<string, string>;
}

const BOUNDARY = "infermill-bench";

export function pictureBody(jpeg: Buffer): Body {
  return { bytes: jpeg, headers: { "Content-Type": "image/jpeg" } };
}

export function jsonBody(value: unknown): Body {
  return { bytes: Buffer.from(JSON.stringify(value)), headers: { "Content-Type": "application/json" } };
}

/** The picture as a file of a form. */
export function formBody(field: string, jpeg: Buffer): Body {
  const head = `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${field}"; filename="picture.jpg"\r\nContent-Type: image/jpeg\r\n\r\n`;
  return {
    bytes: Buffer.concat([Buffer.from(head), jpeg, Buffer.from(`\r\n--${BOUNDARY}--\r\n`)]),
    headers: { "Content-Type": `multipart/form-data; boundary=${BOUNDARY}` },
  };
}

/** The picture as base64 in JSON of the Open Inference Protocol. */
export function base64Body(jpeg: Buffer): Body {
  const input = { name: "image", datatype: "BYTES", shape: [1, 1], data: [jpeg.toString("base64")] };
  return jsonBody({ inputs: [input] });
}

/** The picture as bytes of the Open Inference Protocol's binary extension; the answer is JSON. */
export function binaryBody(jpeg: Buffer): Body {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(jpeg.length);
  const parameters = { binary_data_size: length.length + jpeg.length };
  const head = Buffer.from(
    JSON.stringify({
      inputs: [{ name: "image", datatype: "BYTES", shape: [1, 1], parameters }],
      outputs: [{ name: "found", parameters: { binary_data: false } }],
    }),
  );
  return {
    bytes: Buffer.concat([head, length, jpeg]),
    headers: {
      "Content-Type": "application/octet-stream",
      "Inference-Header-Content-Length": String(head.length),
    },
  };
}

/** A row of float32 in JSON of the Open Inference Protocol. */
export function tensorBody(row: readonly number[]): Body {
  return jsonBody({ inputs: [{ name: "x", datatype: "FP32", shape: [1, row.length], data: row }] });
}
