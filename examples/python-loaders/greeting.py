"""The smallest loader: a plain class with one method."""


class GreetingModelLoader:
    def predict_request(self, request):
        return {"Greeting": f"Hello {request['Name']}"}
