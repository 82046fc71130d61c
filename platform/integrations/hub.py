"""Sending an exported folder to a model hub, by huggingface_hub.

``HF_ENDPOINT`` names the hub, ``HF_TOKEN`` or ``hf auth login`` the user.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import HfApi, constants, get_token, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from slimfed.clients.errors import InputError
from slimfed.clients.export.manifest import Manifest

_DEADLINE_SECONDS = 30.0  # of one answer; huggingface_hub waits for ever


@dataclass(frozen=True)
class Plan:
    """What is to be sent. ``files``: bytes by name. ``there``: the repository exists already.

    ``private``: nobody but its owner will see it. ``paths``: fields of the manifest that name places of this computer.
    """

    folder: Path
    repository: str
    address: str
    user: str
    files: dict[str, int]
    private: bool
    there: bool
    paths: dict[str, str]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def check_name(repository: str) -> None:
    """Raise ``InputError`` unless ``repository`` is written as user/name."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(f"{repository!r} cannot name a model on a hub: {' '.join(str(error).split())[:200]}") from None
    if repository.count("/") != 1:
        raise InputError(f"{repository!r} must be written as user/name")


def planned(folder: Path, manifest: Manifest, repository: str, private: bool) -> Plan:
    """Ask the hub who the user is and whether the repository exists; nothing is sent.

    Raises ``InputError`` without a token, for a token that is refused, for a hub that does not answer, and for a
    repository that is public though ``private`` is wanted.
    """
    check_name(repository)
    api = _api()
    with _in_words(repository, api):
        user = str(api.whoami()["name"])
        there = _look_up(api, repository)
    if there is False and private:
        raise InputError(f"{repository!r} is on the hub already and public: give --public, or another name")
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    shown = private if there is None else there
    address = f"{api.endpoint}/{repository}"
    return Plan(folder, repository, address, user, files, shown, there is not None, _paths(manifest))


def send(plan: Plan, message: str) -> str:
    """Make the repository if there is none, and add all files in one commit; its address.

    Raises ``InputError`` if the hub refuses or does not answer.
    """
    api = _api()
    with _in_words(plan.repository, api):
        if not plan.there:
            api.create_repo(plan.repository, private=plan.private, repo_type="model")
        done = api.upload_folder(
            repo_id=plan.repository, folder_path=plan.folder, repo_type="model", commit_message=message
        )
    return str(done.commit_url)


def _api() -> HfApi:
    """Raises ``InputError`` if there is no token, or hubs are switched off."""
    if constants.is_offline_mode():
        raise InputError("HF_HUB_OFFLINE is set: nothing can be sent; unset it")
    token = get_token()
    if token is None:
        raise InputError("there is no token of a hub here: `hf auth login`, or set HF_TOKEN to one that may write")
    set_client_factory(_client)
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)


def _client() -> httpx.Client:
    """As huggingface_hub makes it, with a deadline."""
    client = default_client_factory()
    client.timeout = httpx.Timeout(_DEADLINE_SECONDS)
    return client


def _look_up(api: HfApi, repository: str) -> bool | None:
    """Whether the repository is private; None if there is none that this user can see."""
    try:
        return bool(api.repo_info(repository, repo_type="model", timeout=_DEADLINE_SECONDS).private)
    except RepositoryNotFoundError:
        return None


@contextmanager
def _in_words(repository: str, api: HfApi) -> Iterator[None]:
    """Raise what goes wrong between here and the hub as ``InputError``."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join((error.server_message or str(error)).split())[:200]
        if status == 401:
            raise InputError(f"{api.endpoint} does not accept the token: `hf auth login`, or set HF_TOKEN") from None
        if status == 403:
            raise InputError(f"{api.endpoint} does not let this token write to {repository!r}: {said}") from None
        raise InputError(f"{api.endpoint} refused {repository!r} (status {status}): {said}") from None
    except (httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{api.endpoint} cannot be reached: {said}; no file was published. Try again; a hub of your own may need "
            "HF_HUB_DISABLE_XET=1"
        ) from None


def _paths(manifest: Manifest) -> dict[str, str]:
    """The fields of a manifest that tell how this computer's folders are called."""
    named = {"base.path": manifest.base.path, "data.path": manifest.data.path}
    return {field: path for field, path in named.items() if os.path.isabs(os.path.expanduser(path))}
