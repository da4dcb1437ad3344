"""Where a job's parts run: in this process, or in those of a Ray cluster. The results are the same.

What a part is, and in which order parts come, is the job's own business and never the engine's: a row's last bits may
depend on the rows it is computed with.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import ConfigError
from pipelines.engine.base import Engine
from pipelines.engine.local import LOCAL


@contextmanager
def open_engine(name: str, address: str | None = None) -> Iterator[Engine]:
    """The engine called `local` or `ray`. Only `ray` has an `address`: that of a cluster which is running already.

    Without one (nor RAY_ADDRESS) Ray is started on this machine and stopped in the end. Raises ConfigError for another
    name, where Ray is not installed, and where nothing answers at the address.
    """
    if name == "ray":
        try:
            from pipelines.engine.ray import open_ray
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise ConfigError(
                "--engine ray: Ray is not installed here. Install it: pip install 'tapewire[ray]'"
            ) from None
        with open_ray(address) as engine:
            yield engine
    elif name != "local":
        raise ConfigError(f"--engine {name}: expected local or ray.")
    elif address is not None:
        raise ConfigError(f"--address {address}: only a Ray cluster has one. Add --engine ray, or leave it out.")
    else:
        yield LOCAL
