"""The two examples of IMIL's advanced guide, as its users write them: nothing here is infermill's."""

import base64
import io

from milapi.utils import get_datetime_utc, get_mtp
from modelloader.base_model_loader import BaseModelLoader


class CustomClipModelLoader(BaseModelLoader):
    """A picture and a list of prompts in; the prompts that fit out, with their scores."""

    def __init__(self, config, model_name):
        super().__init__(config, model_name)
        import clip
        import torch
        from PIL import Image

        section = config[model_name]
        self.clip = clip
        self.torch = torch
        self.open_image = Image.open
        self.device = section["device"]
        self.model, self.preprocess = clip.load(section["clip_model"], device=self.device)

    def predict(self, base64_image, prompt, confidence_threshold=0.5):
        image = self.open_image(io.BytesIO(base64.b64decode(base64_image))).convert("RGB")
        pixels = self.preprocess(image).unsqueeze(0).to(self.device)
        # The first list is the one that counts.
        prompts = prompt[0]
        tokens = self.clip.tokenize(prompts).to(self.device)
        with self.torch.no_grad():
            logits, _ = self.model(pixels, tokens)
        scores = logits.softmax(dim=-1).cpu().numpy()[0]
        return [
            {"Cs": round(float(score), 4), "Lb": text, "Dm": {}}
            for text, score in zip(prompts, scores)
            if score >= float(confidence_threshold)
        ]

    def predict_request(self, request_data):
        started = get_datetime_utc()
        findings = self.predict(request_data["Base_64"], request_data["Prompt"], request_data["C_threshold"])
        keys = ("Tid", "Did", "Fid", "Ts", "Ts_ntp", "Msg_ver", "Inf_ver", "Ad", "Lfp", "Ffp", "Ltsize")
        return {
            **{key: request_data[key] for key in keys},
            "Fs": findings,
            "Mtp": get_mtp(request_data["Mtp"], started, get_datetime_utc(), request_data["Model"]),
            "Obase_64": [],
            "Img_url": [],
            "Rc": "200",
            "Rm": "Success",
        }


class CustomDetectoModelLoader(BaseModelLoader):
    """Detecto: the constructor is all that is its own."""

    def __init__(self, config, model_name):
        super().__init__(config, model_name)
        from detectoinference import Detecto

        path = config[model_name]["model_path"][0]
        self.model_obj = Detecto(path if path else None)
