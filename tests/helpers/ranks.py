"""Two processes of a gloo group that stay, so that many small tests need not start processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

_LIMIT = 300.0  # seconds after which an answer is no longer waited for


class Ranks:
    """A group of processes, each of which runs what it is asked to."""

    def __init__(self, number: int) -> None:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self._store = store  # lives as long as the group
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(number):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, store.port, rank, number), daemon=False)
            process.start()
            self._connections.append(here)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Any]:
        """Results of a module-level function, one per rank; what a rank raises is raised here."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
        for connection in self._connections:
            connection.send((function, arguments, environment))
        results = []
        for connection in self._connections:
            assert connection.poll(_LIMIT), f"no answer within {_LIMIT:.0f} s"
            results.append(connection.recv())
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def close(self) -> None:
        """End the processes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(5)
            process.kill()
            process.join()


def _serve(connection: Connection, port: int, rank: int, number: int) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=number)
    while True:
        try:
            function, arguments, environment = connection.recv()
        except EOFError:
            os._exit(0)
        os.environ.update(environment)
        try:
            connection.send(function(*arguments))
        except BaseException as error:  # told to the test
            connection.send(error)
