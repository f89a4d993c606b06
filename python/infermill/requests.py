"""A request as a loader gets it: a dictionary, and the bytes that came with it."""

from __future__ import annotations

import base64
import binascii
import io
import re
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple, Optional, Sequence

from .errors import BadInputError, MissingKeyError

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

UNKNOWN_MEDIA_TYPE = "application/octet-stream"

#: Keys that IMIL's loaders read from every request, and that clients of the other endpoints and bulk runs don't send.
_IMIL_TEXTS = frozenset(
    ("Tid", "Did", "Fid", "Ts", "Ts_ntp", "Inf_ver", "Msg_ver", "Ad", "Ffp", "Ltsize", "Lfp", "I_fn")
)
_IMIL_LISTS = frozenset(("Per", "Mtp", "Msk_img", "Rep_img"))
_DEFAULT_THRESHOLD = 0.5

_DATA_URL = re.compile(r"^data:[^,]*;base64,", re.IGNORECASE)


class Input(NamedTuple):
    """Bytes that a request brings: a picture, a sound, a tensor."""

    #: Its role: the form field, or the tensor that it is. ``image`` where the client gave none.
    name: str
    #: Lower case, without parameters; ``application/octet-stream`` where nothing is known.
    media_type: str
    data: bytes


class Picture:
    """An encoded picture (JPEG, PNG, WebP), decoded on demand."""

    def __init__(self, data: bytes, max_pixels: Optional[int] = None) -> None:
        #: The file's bytes as they came.
        self.bytes = data
        self._max_pixels = max_pixels
        self._image: Optional[Image] = None

    def image(self) -> "Image":
        """The upright picture as a Pillow image in RGB. Needs Pillow.

        :raises BadInputError: where it can't be decoded or has more than ``max_picture_pixels`` pixels
        """
        if self._image is None:
            from PIL import Image, ImageOps

            try:
                opened = Image.open(io.BytesIO(self.bytes))
                width, height = opened.size
                if self._max_pixels is not None and width * height > self._max_pixels:
                    raise BadInputError(
                        f"the picture has {width} x {height} pixels, max_picture_pixels allows {self._max_pixels}"
                    )
                self._image = ImageOps.exif_transpose(opened).convert("RGB")
            except BadInputError:
                raise
            except Exception as error:
                raise BadInputError(f"the picture can't be decoded: {error}") from error
        return self._image

    def array(self) -> "numpy.ndarray":
        """The upright picture as an array of bytes, [height, width, 3] in RGB. Needs numpy and Pillow.

        :raises BadInputError: as ``image`` does
        """
        import numpy

        return numpy.asarray(self.image())


class Request(dict):  # type: ignore[type-arg]
    """The request dictionary, with the inputs beside it.

    ``request["Base_64"]`` is the base64 of its pictures, built when it is read. A key that IMIL's own server demands and
    that the client left out reads as ``""``, ``[]``, the model's name or 0.5; any other missing key fails this request
    with ``bad_input``.
    """

    #: What came as bytes, in order.
    inputs: Sequence[Input] = ()
    _pictures: Optional[list[Picture]] = None
    _has_lazy_base64 = False

    def __init__(
        self,
        keys: Any = (),
        inputs: Sequence[Input] = (),
        model: str = "",
        max_pixels: Optional[int] = None,
    ) -> None:
        super().__init__(keys)
        self._model = model
        self._max_pixels = max_pixels
        if inputs:
            self.inputs = list(inputs)
            self._has_lazy_base64 = self._brings_pictures()

    def _brings_pictures(self) -> bool:
        return any(map(_is_picture, self.inputs)) and not dict.__contains__(self, "Base_64")

    def input(self, name: str) -> bytes:
        """The bytes of the input of this name.

        :raises BadInputError: where there is none, or several
        """
        found = [each.data for each in self.inputs if each.name == name]
        if len(found) == 1:
            return found[0]
        raise BadInputError(f'the request must bring one input "{name}", it brings {len(found) or "none"}')

    @property
    def pictures(self) -> list[Picture]:
        """Its pictures in order: inputs that are pictures, else what ``Base_64`` holds.

        :raises BadInputError: where ``Base_64`` is not base64
        """
        if self._pictures is None:
            encoded = [each.data for each in self.inputs if _is_picture(each)] or self._decode_base64()
            self._pictures = [Picture(data, self._max_pixels) for data in encoded]
        return self._pictures

    @property
    def picture(self) -> Picture:
        """Its one picture.

        :raises BadInputError: where it brings none, or several
        """
        if len(self.pictures) == 1:
            return self.pictures[0]
        raise BadInputError(f"the request must bring one picture, it brings {len(self.pictures) or 'none'}")

    @property
    def threshold(self) -> float:
        """``C_threshold`` as a number from 0 to 1, 0.5 where the request has none.

        :raises BadInputError: where it is no such number
        """
        given = dict.get(self, "C_threshold")
        if given is None or str(given).strip() == "":
            return _DEFAULT_THRESHOLD
        try:
            threshold = float(given)
        except (TypeError, ValueError):
            threshold = -1.0
        if 0 <= threshold <= 1:
            return threshold
        raise BadInputError(f"C_threshold must be a number from 0 to 1 (or one in a string), got {given!r}")

    def _decode_base64(self) -> list[bytes]:
        given = dict.get(self, "Base_64")
        if given is None or (isinstance(given, str) and given.strip() == ""):
            return []
        return [_decode(text) for text in (given if isinstance(given, list) else [given])]

    # What follows makes Base_64 appear where somebody reads it, and not before.

    def _fill_base64(self) -> None:
        if not self._has_lazy_base64:
            return
        self._has_lazy_base64 = False
        texts = [base64.b64encode(each.data).decode("ascii") for each in self.inputs if _is_picture(each)]
        dict.__setitem__(self, "Base_64", texts[0] if len(texts) == 1 else texts)

    def __missing__(self, key: str) -> Any:
        if key == "Base_64":
            self._fill_base64()
            if dict.__contains__(self, key):
                return dict.__getitem__(self, key)
            raise MissingKeyError("the request must bring a picture, it brings none")
        if key in _IMIL_TEXTS:
            return ""
        if key in _IMIL_LISTS:
            return []
        if key == "Model":
            return self._model
        if key == "C_threshold":
            return _DEFAULT_THRESHOLD
        raise MissingKeyError(f"the request must have the key {key}, which this model's loader reads")

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "Base_64":
            self._has_lazy_base64 = False
        super().__setitem__(key, value)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (key == "Base_64" and self._has_lazy_base64)

    def get(self, key: str, default: Any = None) -> Any:
        if key == "Base_64":
            self._fill_base64()
        return super().get(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        if key == "Base_64":
            self._fill_base64()
        return super().pop(key, *default)

    def __iter__(self) -> Iterator[str]:
        self._fill_base64()
        return super().__iter__()

    def __len__(self) -> int:
        self._fill_base64()
        return super().__len__()

    def keys(self) -> Any:
        self._fill_base64()
        return super().keys()

    def values(self) -> Any:
        self._fill_base64()
        return super().values()

    def items(self) -> Any:
        self._fill_base64()
        return super().items()

    def copy(self) -> "Request":
        own = Request(dict.items(self), self.inputs, self._model, self._max_pixels)
        own._has_lazy_base64 = self._has_lazy_base64
        return own


def _is_picture(given: Input) -> bool:
    return given.media_type == UNKNOWN_MEDIA_TYPE or given.media_type.startswith("image/")


def _decode(text: Any) -> bytes:
    if not isinstance(text, str):
        raise BadInputError(f"Base_64 must be a picture as a base64 string, got {type(text).__name__}")
    body = re.sub(r"\s+", "", _DATA_URL.sub("", text)).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError(f"Base_64 is not base64: it begins with {body[:24]!r}") from error
