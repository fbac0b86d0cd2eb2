"""What an `image_url` may be: the image itself, or an address below one that the operator has allowed."""

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from yarl import URL

from inf_stream.base.config import ServerSettings
from inf_stream.base.errors import ConfigError
from inf_stream.server.protocols.pictures import Image, PictureError, from_base64

_SCHEMES = ("https", "http", "file")
_MOST_CHARACTERS = 2048
_DATA_URI = "data:image/"
_BASE64 = ";base64,"


class AllowedAddresses:
    """Folders of web servers and of this machine, from which images may be fetched.

    Args:
        folders: as `https://HOST/PATH/`, `http://HOST:PORT/PATH/` or `file:///PATH/`; all below them is allowed.

    Raises:
        ConfigError: one of them is nothing such, or is a folder that does not exist.
    """

    def __init__(self, folders: Iterable[str] = ()):
        self._folders = [_folder(folder) for folder in folders]

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> "AllowedAddresses":
        """Those of `server.image_addresses`.

        Raises:
            ConfigError: see above.
        """
        return cls(settings.image_addresses.split())

    def require(self, address: str) -> URL:
        """The address, in its normal form.

        Raises:
            PictureError: it is none, or is not below an allowed folder.
        """
        url = _parse(address) if len(address) <= _MOST_CHARACTERS else None
        if url is None or _names_someone(url) or not any(_is_below(url, folder) for folder in self._folders):
            raise PictureError(
                "image_url is no data URI of an image, and no address of which this server is allowed to fetch images; "
                "send the image itself as data:image/jpeg;base64,...",
                code="invalid_image_url",
            )
        return url.with_fragment(None)

    def file_of(self, url: URL) -> Path | None:
        """The file that an allowed address means; None if links lead out of what is allowed, or it is no file."""
        path = _path(url)
        if path is None or not path.is_file():
            return None
        folders = [_path(folder) for folder in self._folders if folder.scheme == "file"]
        return path if any(folder is not None and path.is_relative_to(folder) for folder in folders) else None


def read_image_url(uri: str, allowed: AllowedAddresses, *, most_bytes: int) -> Image:
    """The image file in a data URI, or an address from which it may be fetched.

    Raises:
        PictureError: it is an address of something else, or is not coded as base64.
    """
    head, marker, _ = uri[:64].partition(_BASE64)
    if head.lower().startswith(_DATA_URI) and marker:
        return from_base64(uri[len(head) + len(marker) :], most_bytes=most_bytes)
    return allowed.require(uri)


def _folder(text: str) -> URL:
    folder = _parse(text)
    if folder is None or _names_someone(folder) or folder.query_string or folder.fragment:
        raise ConfigError(
            f"server.image_addresses has '{text}'; write folders as https://images.example/, "
            "http://192.168.1.20:8080/pictures/ or file:///srv/pictures/, with spaces between them"
        )
    path = _path(folder)
    if path is not None and not path.is_dir():
        raise ConfigError(f"server.image_addresses has '{text}', and there is no such folder; make it, or leave it out")
    return folder if folder.raw_path.endswith("/") else folder.with_path(f"{folder.raw_path}/", encoded=True)


def _parse(text: str) -> URL | None:
    """An absolute address of a known scheme whose path stays where it is, however it is read."""
    try:
        url = URL(text)
        path = url.path
    except ValueError:
        return None
    is_place = not url.host if url.scheme == "file" else bool(url.host)
    return url if url.scheme in _SCHEMES and is_place and path.startswith("/") and _is_plain(path) else None


def _is_plain(path: str) -> bool:
    """Whether a path leads nowhere else for a server that decodes it once more, or cuts parameters off behind `;`."""
    again = unquote(path)
    names = [segment.partition(";")[0] for segment in again.split("/")]
    return unquote(again) == again and ".." not in names and not any(sign in again for sign in "\\\0")


def _names_someone(url: URL) -> bool:
    return url.user is not None or url.password is not None


def _is_below(url: URL, folder: URL) -> bool:
    """As it is written: a server need not take `%2F` for the end of a folder's name."""
    is_same_place = (url.scheme, url.host, url.port) == (folder.scheme, folder.host, folder.port)
    return is_same_place and url.raw_path.startswith(folder.raw_path)


def _path(url: URL) -> Path | None:
    """Where a file address really leads."""
    try:
        return Path(url.path).resolve() if url.scheme == "file" else None
    except (OSError, RuntimeError):  # a circle of links
        return None
