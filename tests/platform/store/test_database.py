"""Two processes that open one new SQLite file."""

import sqlite3
import threading
from pathlib import Path

from slimfed.platform.store.writer import Store


def test_a_new_file_that_another_process_prepares_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    with Store.open("sqlite", tmp_path) as store:
        assert store.writable
    release.join()
    other.close()
