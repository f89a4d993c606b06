"""The twin of echo.ts."""

import array

from infermill import BaseModelLoader, Output, attach_outputs

FLOATS = array.array("f", [0]) * 16_000


class EchoModelLoader(BaseModelLoader):
    def predict_requests(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        if "Floats" in request:
            return attach_outputs({}, [Output("floats", "application/octet-stream", FLOATS.tobytes())])
        if request.inputs:
            return {"Bytes": len(request.picture.bytes)}
        return dict(request)
