"""What loaders written for IMIL import, where the user's folder has none of it: its base class and two helpers.

``from modelloader.base_model_loader import BaseModelLoader`` and ``from milapi.utils import get_mtp, get_datetime_utc``
resolve to this module, behind everything else that Python can find.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any, Optional

from .loader import resolve
from .responses import get_datetime_utc, get_mtp


class BaseModelLoader:
    """IMIL's contract: ``model_obj.executeModel(Base_64, Cs)`` finds, the rest is inherited."""

    def __init__(self, config: Any, model_name: str) -> None:
        self.model_obj: Any = None

    def preprocessing(self, image: Any) -> Any:
        """Author's hook; not called."""

    def postprocessing(self, data: Any) -> Any:
        """Author's hook; not called."""

    def predict(self, Base_64: Any, Cs: Any) -> Any:  # noqa: N803 -- IMIL's names
        """Finds what is in the picture. ``Base_64`` is a string, ``Cs`` what the request has in ``C_threshold``."""
        model = getattr(self, "model_obj", None)
        if model is None:
            raise NotImplementedError(f"{type(self).__name__} must set self.model_obj, or override predict")
        return model.executeModel(Base_64, Cs)

    def predict_request(self, req_data: Any) -> Any:
        """The main driver: request dictionary in, response dictionary out."""
        start_time = get_datetime_utc()
        findings = resolve(self.predict(req_data["Base_64"], req_data["C_threshold"]))
        echoed = ("Tid", "Did", "Fid", "Ts", "Ts_ntp", "Msg_ver", "Inf_ver", "Ad", "Lfp", "Ffp", "Ltsize")
        return {
            **{key: req_data[key] for key in echoed},
            "Fs": findings,
            "Mtp": get_mtp(req_data["Mtp"], start_time, get_datetime_utc(), req_data["Model"]),
            "Obase_64": [],
            "Img_url": [],
            "Rc": "200",
            "Rm": "Success",
        }


_MODULES: dict[str, dict[str, Any]] = {
    "modelloader": {},
    "modelloader.base_model_loader": {"BaseModelLoader": BaseModelLoader},
    "milapi": {},
    "milapi.utils": {"get_mtp": get_mtp, "get_datetime_utc": get_datetime_utc},
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[importlib.machinery.ModuleSpec]:
        if name not in _MODULES:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package="." not in name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])


def install_finder() -> None:
    """Makes the modules importable, after everything that is on the path."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
