"""MLServer with adaptive batches of up to 8: a worker for each core, the picture as base64 of the Open Inference Protocol."""

import base64
import json

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Pictures(MLModel):
    async def load(self) -> bool:
        from vision import Model

        self.model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = self.model.predict([base64.b64decode(each) for each in payload.inputs[0].data.root])
        output = ResponseOutput(
            name="found", datatype="BYTES", shape=[len(found), 1], data=[json.dumps({"Fs": each}) for each in found]
        )
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])


class Rows(MLModel):
    async def load(self) -> bool:
        from vectors import Rows as RowsModel

        self.model = RowsModel()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.model.run(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("y", rows)
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=[output])
