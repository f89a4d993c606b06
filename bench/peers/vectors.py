"""Rows of numbers and texts through onnxruntime on one thread. BENCH_MODEL is JSON: {"file", "tokenizer"}."""

import json
import os

import numpy as np
import onnxruntime

MODEL = json.loads(os.environ["BENCH_MODEL"])


def open_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL["file"], options, providers=["CPUExecutionProvider"])


class Rows:
    def __init__(self):
        self.session = open_session()

    def run(self, rows):
        """[rows, inputs] to [rows, outputs]."""
        return self.session.run(None, {"x": np.asarray(rows, np.float32)})[0]


class Texts:
    def __init__(self):
        from tokenizers import Tokenizer

        self.session = open_session()
        self.tokenizer = Tokenizer.from_file(MODEL["tokenizer"])
        self.tokenizer.enable_padding()

    def embed(self, texts):
        """A unit vector for each text, the mean over its tokens."""
        found = self.tokenizer.encode_batch(texts)
        mask = np.array([each.attention_mask for each in found], np.int64)
        feeds = {
            "input_ids": np.array([each.ids for each in found], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        tokens = self.session.run(None, feeds)[0]
        means = (tokens * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return means / np.linalg.norm(means, axis=1, keepdims=True)
