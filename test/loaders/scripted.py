"""The twin of scripted.ts: a loader that does what each request tells it to."""

import asyncio
import multiprocessing
import os
import struct
import subprocess
import sys
import time

from infermill import BadInputError, BaseModelLoader, RetryableError


class ScriptedModelLoader(BaseModelLoader):
    def predict_requests(self, requests):
        journal = self.settings.get("journal")
        if journal:
            with open(journal, "a", encoding="utf-8") as file:
                file.write(" ".join(str(request["Fid"]) for request in requests) + "\n")
        told = {request.get("Do") for request in requests}
        if "crash" in told:
            os.kill(os.getpid(), 9)
        if "abort" in told:
            os.abort()
        if "exit" in told:
            os._exit(3)
        if "leave" in told:
            sys.exit(3)
        if "hang" in told:
            while True:
                pass
        if "throw" in told:
            raise RuntimeError("told to throw")
        if "close pipe" in told:
            os.close(3)
            time.sleep(60)
        if "huge frame" in told:
            os.write(3, b"IFM1" + struct.pack("<II", 2**31, 0))
            time.sleep(60)
        if "stray line" in told:
            os.write(3, b"a stray line\n")
            time.sleep(60)
        if "bare NaN" in told:
            header = b'{"type":"outcomes","outcomes":[{"key":NaN}]}'
            os.write(3, b"IFM1" + struct.pack("<II", len(header), 0) + header)
            time.sleep(60)
        if "out of memory" in told and len(requests) > 2:
            raise MemoryError(f"{len(requests)} don't fit")
        if "print garbage" in told:
            os.write(1, bytes(range(256)) * 64)
            print('{"type":"outcomes","outcomes":[]}\nIFM1', flush=True)
            print("a last word", file=sys.stderr, flush=True)
        if "fork children" in told:
            self.children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)) for _ in range(2)]
            for child in self.children:
                child.start()
            subprocess.Popen(["sleep", "600"])
        if "progress" in told:
            from infermill import progress

            for _ in range(8):
                time.sleep(0.3)
                progress()
        time.sleep(max(float(request.get("Ms", 0)) for request in requests) / 1000)
        if "wrong count" in told:
            return []
        return [self.answer(request) for request in requests]

    def answer(self, request):
        told = request.get("Do")
        if told == "refuse":
            return BadInputError("told to refuse")
        if told == "no dictionary":
            return 42
        if told == "no JSON":
            return {**request, "Fs": [{"Cs": object()}]}
        if told == "NaN":
            return {**request, "Fs": [{"Cs": 1, "Lb": "a"}, {"Cs": float("nan")}]}
        if told == "retry once":
            mark = os.path.join(self.settings["folder"], f"tried-{request['Fid']}")
            if not os.path.exists(mark):
                open(mark, "w").close()
                return RetryableError("told to fail once")
        findings = [{"Cs": 1, "Lb": str(request["Fid"]), "Dm": {}}]
        return {**request, "Fs": findings, "Mtp": [], "Obase_64": [], "Img_url": [], "Rc": "200", "Rm": "Success"}


class AsyncModelLoader(BaseModelLoader):
    async def load(self):
        await asyncio.sleep(0)
        self.is_loaded = True

    async def predict_request(self, request):
        await asyncio.sleep(0)
        return {"Loaded": self.is_loaded, "Fid": request["Fid"]}
